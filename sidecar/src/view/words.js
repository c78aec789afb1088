// What sessions and what comes of them are in plain words. What happened is explained by the sidecar itself.

import { duration } from "./dom.js";

const SIDES = { Local: "the application", Remote: "the remote side" };

/** A side of the call. */
export const side = (name) => SIDES[name] ?? name ?? "nobody";

const seconds = (number) => `${number} s`;

// How an event reads: good, warn, bad, or as any other.
const TONES = {
  Rejected: "warn",
  RejectionWithoutMinSe: "warn",
  Malformed: "warn",
  ShortInterval: "warn",
  RefresherUnclear: "warn",
  Established: "good",
  Refreshed: "good",
  TimerOff: "warn",
  RefreshFailed: "warn",
  Expired: "bad",
  ByeSent: "bad",
  LateRequest: "warn",
  UnknownDialog: "warn",
  LimitReached: "warn",
  NotRefreshed: "warn",
  ProbeFailed: "warn",
  MediaChanged: "warn",
  Challenged: "warn",
};

/** The tone of an event. */
export function tone({ kind, reason }) {
  if (kind === "Ended") return reason === "Bye" ? undefined : "bad";
  if (kind === "ByeDone") return reason === "TimedOut" ? "warn" : undefined;
  return TONES[kind];
}

/** An event as the sidecar explains it: `{ text, section, tone }`. */
export const eventWords = (event) => ({ text: event.text ?? event.kind, section: event.rfc ?? "", tone: tone(event) });

/** The beginning of a session. */
export const inviteWords = (session) => ({
  text: session.direction === "Inbound" ? "INVITE of the remote side." : "INVITE of the application.",
  section: "RFC 3261 §13.2, RFC 4028 §7.1",
});

const STEPS = {
  Refresh: (session) => {
    const how = session.acting?.method ? ` with ${session.acting.method}` : "";
    return [`The sidecar refreshes${how}.`, "RFC 4028 §7.4"];
  },
  Probe: () => ["The sidecar asks the application whether it still has the call.", "RFC 3261 §11"],
  Expire: (session) =>
    session.mode === "Observe"
      ? ["The session counts as expired; Observe sends nothing.", "RFC 4028 §10"]
      : ["The sidecar ends the call with BYE to both sides, unless it is refreshed before.", "RFC 4028 §10"],
};

/** What comes, soonest first: `{ in_s, text, section }`. */
export function comingWords(session) {
  const coming = [];
  const add = (in_s, [text, section]) => coming.push({ in_s, text, section });
  if (session.next && session.next.step !== "Expire") {
    add(session.next.in_s, STEPS[session.next.step]?.(session) ?? [session.next.step, ""]);
  }
  if (session.expires_in_s !== null) add(session.expires_in_s, STEPS.Expire(session));
  if (session.deadline_in_s !== null) {
    add(session.deadline_in_s, [`The session interval of ${seconds(session.interval_s)} ends.`, "RFC 4028 §10"]);
  }
  return coming.sort((a, b) => a.in_s - b.in_s);
}

/** What comes next, short enough for a table. */
export function nextWords(session) {
  if (session.state === "Ended") return session.ended ? endName(session.ended) : "ended";
  if (!session.next) return "no timer";
  const step = { Refresh: "refresh", Probe: "probe", Expire: "expires" }[session.next.step] ?? session.next.step;
  return session.next.in_s < 1 ? `${step} now` : `${step} in ${duration(session.next.in_s)}`;
}

/** The name of an end, short. */
export const endName = (cause) =>
  ({
    Bye: "hung up",
    Expired: "expired",
    Response: "ended by a response",
    Forgotten: "forgotten",
    RefreshFailed: "refresh failed",
    AppGone: "application gone",
    Requested: "ended on request",
  })[cause] ?? cause;

/** What the sidecar does in the application's place. */
export function actingWords(acting) {
  const media = {
    Known: "its session description is known",
    UnknownSdp: "its session description is not known",
    OpenOffer: "an offer is open",
    BoundSdp: "its session description is bound to DTLS or ICE",
  };
  const how = acting.method ? `refreshes with ${acting.method}` : "cannot refresh";
  const last = acting.last_refresh_ago_s === null ? "" : `, last ${duration(acting.last_refresh_ago_s)} ago`;
  const peer = acting.peer_has_timers ? "the peer has timers too" : "the peer has no timers";
  return `${how}${last}; ${media[acting.sdp] ?? acting.sdp}; ${peer}${acting.under_way ? "; a request waits for its answer" : ""}`;
}
