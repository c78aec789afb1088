// The session view: asks the sidecar again and again, and shows what it says. It knows no more than `/sessions` and the
// messages of the session that is open.
// Addresses are relative, so that the page works behind any proxy that keeps paths below it.

import { drawCharts } from "./charts.js";
import { detailParts, stateWords } from "./detail.js";
import { byId, clock, count, duration, html, morph, write } from "./dom.js";
import { nextWords, side } from "./words.js";

const PAGE = 50;
const POLL_MS = 2000;
const HIDDEN_MS = 10000;
const HISTORY_MS = 10000;
const ANSWER_MS = 8000;
/** Filters are asked for when typing pauses. */
const TYPING_MS = 150;
const THEMES = ["system", "light", "dark"];
const FILTERS = { call_id: "filter-call-id", peer: "filter-peer", policy: "filter-policy", state: "filter-state" };

const state = { offset: 0, total: 0, picked: null, detail: null, messages: null, gone: false, token: "", asked: 0, timer: 0, lostAt: null, history: null };
/** The sessions of the page that is shown, and their rows, by id. */
const listed = new Map();
const rows = new Map();

/** What a request other than 2xx was answered with. */
class Refused extends Error {
  constructor(status, text) {
    super(text.trim() || `status ${status}`);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS), ...options });
  if (!answer.ok) throw new Refused(answer.status, await answer.text());
  return answer;
}

const json = async (path) => (await ask(path)).json();

function query() {
  const fields = new URLSearchParams({ offset: state.offset, limit: PAGE });
  for (const [name, id] of Object.entries(FILTERS)) {
    const value = byId(id).value.trim();
    if (value) fields.set(name, value);
  }
  return fields;
}

const isFiltered = () => Object.values(FILTERS).some((id) => byId(id).value.trim() !== "");

// Asking

/** Asks now, and from then on every two seconds, less often when answers take long. Only the latest asking counts. */
async function poll() {
  clearTimeout(state.timer);
  const asked = (state.asked += 1);
  const begun = performance.now();
  try {
    const [page, status] = await Promise.all([json(`sessions?${query()}`), json("status"), refreshDetail()]);
    if (asked !== state.asked) return;
    found();
    showStatus(status);
    if (showPage(page)) return;
  } catch (error) {
    if (asked !== state.asked) return;
    lost(error);
  }
  const wait = Math.min(Math.max(POLL_MS, 4 * (performance.now() - begun)), HIDDEN_MS);
  state.timer = setTimeout(poll, document.hidden ? HIDDEN_MS : wait);
}

async function refreshDetail() {
  const id = state.picked;
  if (!id || state.gone) return;
  try {
    const path = `sessions/${encodeURIComponent(id)}`;
    // A sidecar that remembers nothing of it, or an older one, still has the session.
    const [session, messages] = await Promise.all([json(path), json(`${path}/messages`).catch(() => null)]);
    if (id !== state.picked) return;
    Object.assign(state, { detail: session, messages });
  } catch (error) {
    if (error.status !== 404) throw error;
    if (id !== state.picked) return;
    state.gone = true;
  }
  showDetail();
}

async function pollHistory() {
  try {
    state.history = await json("history");
    drawCharts(byId("charts"), state.history);
  } catch {
    // The sessions' own asking tells that the sidecar is gone; the charts stay as they were.
  }
  setTimeout(pollHistory, HISTORY_MS);
}

function lost(error) {
  state.lostAt ??= new Date();
  const refused = error instanceof Refused;
  const why = refused ? `The sidecar answers with an error (${error.status}: ${error.message})` : "The sidecar has not answered";
  const since = state.lostAt.toLocaleTimeString();
  write(byId("lost"), `${why} since ${since}. What is shown is from before; the page goes on asking every few seconds.`);
  byId("lost").hidden = false;
  document.body.classList.add("stale");
}

function found() {
  state.lostAt = null;
  byId("lost").hidden = true;
  document.body.classList.remove("stale");
}

// Showing

function showStatus(status) {
  write(byId("policy"), `Policy ${status.policy} · ${status.mode} · ${count(status.sessions)} active`);
  write(byId("problem"), status.error ? `The policy has a problem; the last good one stays in force.\n${status.error}` : "");
  byId("problem").hidden = !status.error;
}

/** Shows a page of sessions; `true` when another page is asked for instead, because this one is behind the end. */
function showPage({ sessions, total }) {
  state.total = total;
  if (sessions.length === 0 && total > 0 && state.offset > 0) {
    state.offset = Math.floor((total - 1) / PAGE) * PAGE;
    poll();
    return true;
  }
  const focused = rows.has(document.activeElement?.dataset?.id) ? document.activeElement.dataset.id : null;
  listed.clear();
  for (const session of sessions) listed.set(session.id, session);
  for (const id of rows.keys()) if (!listed.has(id)) rows.delete(id);
  const ordered = sessions.map((session, index) => showRow(session, state.offset + index));
  const body = byId("rows");
  if (ordered.length !== body.children.length || ordered.some((row, index) => row !== body.children[index])) {
    body.replaceChildren(...ordered);
    if (focused) (rows.get(focused) ?? ordered[0])?.focus();
  }
  markRows();
  showCounts(sessions.length);
  return false;
}

function showRow(session, index) {
  const row = rows.get(session.id) ?? newRow(session.id);
  row.setAttribute("aria-rowindex", index + 2);
  const remote = session.legs.remote;
  const ended = session.state === "Ended";
  const rule = session.rule ? ` / ${session.rule}` : "";
  const texts = [
    session.state,
    session.call_id,
    session.direction,
    remote.flow,
    `${session.policy}${rule}`,
    session.interval_s === null ? "—" : duration(session.interval_s),
    session.refresher ? side(session.refresher) : "—",
    nextWords(session),
    clock(session.age_s),
  ];
  texts.forEach((text, index) => write(row.cells[index], text));
  row.cells[1].title = session.call_id;
  row.cells[3].title = remote.party;
  row.className = ended ? "ended" : "";
  row.cells[0].className = `state ${ended ? (["Bye", "Requested"].includes(session.ended) ? "" : "bad") : "good"}`;
  return row;
}

function newRow(id) {
  const kinds = ["state", "code", "wide", "code", "wide", "number", "wide", undefined, "number"];
  const row = html("tr", { tabindex: -1, "data-id": id }, ...kinds.map((kind) => html("td", { class: kind })));
  row.addEventListener("click", () => {
    row.focus();
    pick(id);
  });
  row.addEventListener("focus", markRows);
  rows.set(id, row);
  return row;
}

/** One row can be reached by Tab: the focused one, else the picked one, else the first. */
function markRows() {
  const all = [...byId("rows").children];
  const active = all.find((row) => row === document.activeElement);
  const reachable = active ?? rows.get(state.picked) ?? all[0];
  for (const row of all) {
    row.tabIndex = row === reachable ? 0 : -1;
    row.setAttribute("aria-selected", String(row.dataset.id === state.picked));
  }
}

function showCounts(here) {
  const last = state.offset + here;
  const what = `session${state.total === 1 ? "" : "s"}${isFiltered() ? " that fit" : ""}`;
  write(byId("shown"), here === 0 ? "No sessions" : `${count(state.offset + 1)}–${count(last)} of ${count(state.total)} ${what}`);
  byId("previous").disabled = state.offset === 0;
  byId("next").disabled = last >= state.total;
  byId("sessions").setAttribute("aria-rowcount", state.total + 1);
  byId("empty").hidden = here > 0;
  write(byId("empty"), isFiltered() ? "No session fits these filters." : "No sessions yet. A call appears here with its first 2xx, and stays a short while after its end.");
}

function showDetail() {
  const { detail: session, picked } = state;
  if (!picked) return;
  const box = byId("detail");
  // What is pressed here is about the session it was made for.
  if (box.dataset.session !== picked) box.replaceChildren();
  box.dataset.session = picked;
  if (!session) {
    morph(box, [detailHead(picked, state.gone ? "The sidecar does not know this session." : "")]);
    return;
  }
  const parts = detailParts(session, state.messages, Math.max(200, box.clientWidth - 28), state.gone);
  morph(box, [detailHead(session.call_id, `${session.id} · ${stateWords(session)}`), verbs(session), ...parts]);
}

function detailHead(title, text) {
  const close = html("button", { id: "close", type: "button", "aria-label": "Close the session" }, "Close");
  close.addEventListener("click", unpick);
  return html("div", { class: "detail-head" }, html("div", {}, html("h2", { id: "detail-title" }, title), html("p", {}, text)), close);
}

// Acting

function verbs(session) {
  if (session.state !== "Active" || state.gone) return html("div", { class: "verbs", hidden: "" });
  const box = html("div", { class: "verbs" });
  if (!state.token) {
    box.append(html("p", {}, "Read-only: with the admin token a session can be refreshed or ended here."));
    return box;
  }
  const why = session.acting ? {} : { disabled: "", title: "Only where the sidecar keeps the timer for the application" };
  const refresh = html("button", { id: "refresh", type: "button", ...why }, "Refresh now");
  const end = html("button", { id: "end", type: "button", class: "danger" }, "End the call…");
  refresh.addEventListener("click", () => act(session.id, "refresh"));
  end.addEventListener("click", () => confirmEnd(session));
  box.append(refresh, end, html("p", { id: "acted", role: "status" }, state.acted ?? ""));
  return box;
}

async function act(id, verb) {
  try {
    const options = { method: "POST", headers: { Authorization: `Bearer ${state.token}` } };
    state.acted = (await (await ask(`sessions/${encodeURIComponent(id)}/${verb}`, options)).text()).trim();
  } catch (error) {
    state.acted = error instanceof Refused ? `Refused: ${error.message}` : "The sidecar did not answer.";
  }
  poll();
}

function confirmEnd(session) {
  const dialog = byId("confirm");
  write(byId("confirm-text"), `Both sides of ${session.call_id} get a BYE. This cannot be taken back.`);
  dialog.dataset.id = session.id;
  dialog.showModal();
}

function useToken(event) {
  event.preventDefault();
  const field = byId("token");
  state.token = field.value.trim();
  field.value = "";
  field.placeholder = state.token ? "in use" : "read-only without";
  field.title = state.token ? "An empty field forgets the token" : "";
  state.acted = "";
  byId("token-form").classList.toggle("held", state.token !== "");
  showDetail();
}

// Choosing

function pick(id, { focus = false } = {}) {
  if (state.picked !== id) Object.assign(state, { picked: id, detail: listed.get(id) ?? null, messages: null, gone: false, acted: "" });
  byId("main").classList.add("open");
  byId("detail").hidden = false;
  showDetail();
  history.replaceState(null, "", `#${id}`);
  markRows();
  if (focus) byId("detail").focus();
  poll();
}

function unpick() {
  const row = rows.get(state.picked);
  Object.assign(state, { picked: null, detail: null, messages: null, gone: false, acted: "" });
  byId("main").classList.remove("open");
  byId("detail").hidden = true;
  byId("detail").replaceChildren();
  history.replaceState(null, "", location.pathname + location.search);
  markRows();
  (row ?? byId("rows").firstElementChild)?.focus();
}

function turn(pages) {
  const offset = Math.max(0, state.offset + pages * PAGE);
  if (offset >= Math.max(1, state.total) || offset === state.offset) return;
  state.offset = offset;
  poll();
}

function filter() {
  byId("filter-state").classList.toggle("set", byId("filter-state").value !== "");
  state.offset = 0;
  state.asked += 1;
  clearTimeout(state.timer);
  state.timer = setTimeout(poll, TYPING_MS);
}

function clearFilters() {
  for (const id of Object.values(FILTERS)) byId(id).value = "";
  filter();
}

function paint(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  write(byId("theme"), `Colours: ${theme}`);
}

function nextTheme() {
  const now = document.documentElement.dataset.theme ?? "system";
  paint(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
}

// Keys

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("confirm").open) return;
  const typing = event.target.matches("input, select");
  if (event.key === "/" && !typing) return then(event, () => byId("filter-call-id").select());
  if (event.key === "Escape") return then(event, () => escape(event.target));
  if (typing && event.key === "ArrowDown" && event.target.matches(".filters input")) return then(event, () => move(0));
  const row = event.target.closest?.("#rows tr");
  if (!row && event.target !== document.body) return undefined;
  const keys = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    Home: () => move(-Infinity),
    End: () => move(Infinity),
    PageDown: () => turn(1),
    PageUp: () => turn(-1),
    Enter: () => row && pick(row.dataset.id, { focus: true }),
  };
  return keys[event.key] && then(event, keys[event.key]);
}

function then(event, does) {
  event.preventDefault();
  does();
}

/** Out of a filter that is set: it is emptied. Out of anything else: the session is closed. */
function escape(target) {
  if (target.matches("input") && target.value !== "") {
    target.value = "";
    if (target.closest(".filters")) filter();
  } else if (state.picked) unpick();
  else move(0);
}

function move(by) {
  const all = [...byId("rows").children];
  const at = all.indexOf(document.activeElement);
  const from = at < 0 ? Math.max(0, all.findIndex((row) => row.tabIndex === 0)) : at;
  const to = Math.min(all.length - 1, Math.max(0, at < 0 ? from : from + by));
  all[to]?.focus();
}

function begin() {
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", () => document.hidden || poll());
  for (const id of Object.values(FILTERS)) byId(id).addEventListener("input", filter);
  byId("clear").addEventListener("click", clearFilters);
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("theme").addEventListener("click", nextTheme);
  byId("token-form").addEventListener("submit", useToken);
  byId("confirm-no").addEventListener("click", () => byId("confirm").close());
  byId("confirm-yes").addEventListener("click", () => {
    byId("confirm").close();
    act(byId("confirm").dataset.id, "end");
  });
  addEventListener("resize", () => state.history && drawCharts(byId("charts"), state.history));
  const linked = decodeURIComponent(location.hash.slice(1));
  if (linked) pick(linked);
  else poll();
  pollHistory();
}

begin();
