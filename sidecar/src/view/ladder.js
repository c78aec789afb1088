// The messages of a session's call as a ladder: who sent what to whom, what the sidecar changed in it, and why.

import { html, svg } from "./dom.js";
import { tone } from "./words.js";

const ARROW = { height: 12, edge: 1, head: 6 };
/** Where each party's line stands, of the whole width. */
const LANES = { Remote: 0, Sidecar: 0.5, Local: 1 };
const NAMES = { Remote: "the remote side", Sidecar: "the sidecar", Local: "the application" };

const OUTCOMES = {
  Answered: (message) => `answered ${message.status} here`,
  Absorbed: () => "for the sidecar alone",
  Dropped: () => "went no further",
};

/** The messages with their head. `told` is what `/sessions/{id}/messages` says; nothing while that is not known. */
export function ladder(told, width) {
  const box = html("div", { class: "ladder" }, html("h3", { id: "messages" }, "Messages"));
  if (!told) return box;
  if (told.messages.length === 0) {
    box.append(html("p", { class: "note" }, "No message of this call is remembered any more."));
    return box;
  }
  if (told.lost) box.append(html("p", { class: "note" }, "Earlier messages of this call are not remembered any more."));
  const lanes = html("div", { class: "parties", "aria-hidden": "true" }, ...["Remote side", "Sidecar", "Application"].map((name) => html("span", {}, name)));
  const items = told.messages.map((message) => passage(message, width));
  box.append(lanes, html("ol", { "aria-labelledby": "messages" }, ...items));
  return box;
}

function passage(message, width) {
  const changed = message.changes.length > 0;
  const worst = message.decisions.map(tone).find((found) => found === "bad" || found === "warn");
  const parts = [label(message), arrow(message, changed, width)];
  if (changed) parts.push(html("dl", { class: "changes" }, ...message.changes.flatMap(change)));
  if (message.decisions.length > 0) parts.push(html("ul", { class: "why" }, ...message.decisions.map(reason)));
  return html("li", { class: [message.outcome.toLowerCase(), worst].filter(Boolean).join(" ") }, ...parts);
}

function label(message) {
  const words = message.start.split(" ");
  const what = message.start.startsWith("SIP/") ? words.slice(1).join(" ") : words[0];
  const outcome = OUTCOMES[message.outcome]?.(message);
  const at = new Date(message.at);
  const when = `${at.toLocaleTimeString([], { hour12: false })}.${String(at.getMilliseconds()).padStart(3, "0")}`;
  const timers = message.headers.filter(({ header }) => header !== "Supported" && header !== "Require");
  const shown = message.changes.length > 0 ? [] : timers;
  return html(
    "div",
    { class: "label" },
    html("time", { datetime: message.at }, when),
    html("strong", { title: message.start }, what),
    html("small", {}, `CSeq ${message.cseq}`),
    ...(outcome ? [html("em", {}, outcome)] : []),
    ...shown.map(({ header, value }) => html("code", {}, `${header}: ${value}`)),
  );
}

/** From its sender to where it went; what the sidecar keeps ends at its line. What leaves changed has another colour. */
function arrow(message, changed, width) {
  const lane = (party) => ARROW.edge + LANES[party] * (width - 2 * ARROW.edge);
  const to = message.to ?? "Sidecar";
  const [start, end, middle] = [lane(message.from), lane(to), lane("Sidecar")];
  const back = end < start ? -1 : 1;
  const y = ARROW.height / 2;
  const line = (kind, from, until) => svg("line", { class: kind, x1: from, x2: until, y1: y, y2: y });
  const tip = end - back * ARROW.head;
  const head = `${end},${y} ${tip},${y - ARROW.head / 2} ${tip},${y + ARROW.head / 2}`;
  const shapes = changed ? [line("as-it-came", start, middle), line("as-it-left", middle, tip)] : [line("as-it-came", start, tip)];
  return svg(
    "svg",
    { width, height: ARROW.height, viewBox: `0 0 ${width} ${ARROW.height}`, role: "img", "aria-label": `From ${NAMES[message.from]} to ${NAMES[to]}` },
    ...shapes,
    svg("polygon", { class: changed ? "as-it-left" : "as-it-came", points: head }),
  );
}

function change({ header, before, after }) {
  const value = (tag, text) => (text === null ? html("span", { class: "none" }, "none") : html(tag, {}, text));
  return [html("dt", {}, header), html("dd", {}, value("del", before), " → ", value("ins", after))];
}

function reason(decision) {
  const where = [decision.rfc, decision.field].filter(Boolean).join(" · ");
  return html("li", { class: tone(decision) }, decision.text, " ", html("small", {}, where));
}
