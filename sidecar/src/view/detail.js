// One session: its facts, where it is within its session interval, and its time line from INVITE to what comes.

import { clock, duration, html, svg } from "./dom.js";
import { ladder } from "./ladder.js";
import { actingWords, comingWords, endName, eventWords, inviteWords, side } from "./words.js";

const TRACK = { height: 40, left: 4, bar: 12, top: 4 };

/** The inner elements of the detail, after its head. `messages`: those of its call. `gone`: the sidecar no longer knows it. */
export function detailParts(session, messages, width, gone) {
  const parts = [facts(session)];
  if (gone) parts.unshift(html("p", { class: "gone" }, "The sidecar no longer knows this session. It is shown as it was last."));
  if (session.deadline_in_s !== null && session.interval_s) parts.push(intervalBar(session, width));
  parts.push(timeLine(session, gone), ladder(messages, width));
  return parts;
}

/** `Active for 2 min` or how it ended. */
export function stateWords(session) {
  if (session.state === "Active") return `${session.state} for ${duration(session.age_s)}`;
  return `${session.state}: ${endName(session.ended)}`;
}

function facts(session) {
  const { local, remote } = session.legs;
  const rule = session.rule ? `, rule ${session.rule}` : "";
  const rows = [
    ["State", stateWords(session)],
    ["Direction", session.direction],
    ["Remote side", `${remote.party} at ${remote.flow} (${remote.transport})`],
    ["Application", `${local.party} at ${local.flow} (${local.transport})`],
    ["Policy", `${session.policy}${rule} (${session.mode})`],
    ["Session interval", session.interval_s === null ? "no timer" : duration(session.interval_s)],
    ["Refresher", session.refresher ? side(session.refresher) : "nobody"],
  ];
  if (session.min_se_s) rows.push(["Highest Min-SE", duration(session.min_se_s)]);
  if (session.acting) rows.push(["For the application", `The sidecar ${actingWords(session.acting)}.`]);
  return html("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]));
}

/** From the last 2xx that armed the timer to the deadline, with half, expiry and now. */
function intervalBar(session, width) {
  const { interval_s: interval, deadline_in_s: left, expires_in_s: expires } = session;
  const right = width - TRACK.left;
  const x = (passed_s) => TRACK.left + (Math.min(Math.max(passed_s / interval, 0), 1) * (right - TRACK.left));
  const bottom = TRACK.top + TRACK.bar;
  const mark = (kind, at, title) =>
    svg("line", { class: kind, x1: x(at), x2: x(at), y1: TRACK.top - 3, y2: bottom + 4 }, svg("title", {}, title));
  const note = (at, anchor, text) => svg("text", { x: x(at), y: bottom + 15, "text-anchor": anchor }, text);
  const passed = interval - left;
  const bar = (kind, to) => svg("rect", { class: kind, x: x(0), y: TRACK.top, width: x(to) - x(0), height: TRACK.bar, rx: 3 });
  const label = `${duration(passed)} of the session interval of ${duration(interval)} have passed, ${duration(left)} are left`;
  const shapes = [bar("track", interval), bar("passed", passed), mark("half", interval / 2, "A refresh is due here"), mark("now", passed, "Now")];
  const notes = [note(0, "start", "last 2xx"), note(interval / 2, "middle", "half"), note(interval, "end", "deadline")];
  if (expires !== null) shapes.push(mark("expiry", passed + expires, "The session expires here"));
  return html(
    "div",
    { class: "interval" },
    html("h3", {}, `${duration(left)} left of ${duration(interval)}`),
    svg("svg", { width, height: TRACK.height, viewBox: `0 0 ${width} ${TRACK.height}`, role: "img", "aria-label": label }, ...shapes, ...notes),
  );
}

function timeLine(session, gone) {
  const begin = { at_s: 0, ...inviteWords(session) };
  const past = session.events.map((event) => ({ at_s: session.age_s - event.ago_s, ago_s: event.ago_s, ...eventWords(event) }));
  const coming = gone ? [] : comingWords(session).map((step) => ({ at_s: session.age_s + step.in_s, coming: true, ...step }));
  const items = [begin, ...past, ...coming].map(item);
  return html("div", {}, html("h3", { id: "time-line" }, "Time line"), html("ol", { class: "line-list", "aria-labelledby": "time-line" }, ...items));
}

function item({ at_s, ago_s, in_s, coming, text, section, tone }) {
  const when = coming ? `in ${duration(in_s)}` : ago_s === undefined ? "the beginning" : `${duration(ago_s)} ago`;
  const words = html("span", { class: "text" }, coming ? `${capital(when)}: ${text}` : text, " ", html("small", {}, section));
  return html(
    "li",
    { class: [tone, coming && "coming"].filter(Boolean).join(" ") || undefined, title: when },
    html("time", {}, clock(at_s)),
    html("span", { class: "dot", "aria-hidden": "true" }),
    words,
  );
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
