// What sessions, their ends and their events are in plain words, with the section to read. Section numbers without an
// RFC are those of RFC 4028.

import { duration } from "./dom.js";

const SIDES = { Local: "the application", Remote: "the remote side" };

/** A side of the call. */
export const side = (name) => SIDES[name] ?? name ?? "nobody";

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const seconds = (number) => (number === undefined ? "?" : `${number} s`);

const NOT_REFRESHED = {
  UnknownSdp: "it takes a re-INVITE, and the session description in force is not known",
  OpenOffer: "an offer is still open, and a re-INVITE would need one of its own",
  BoundSdp: "it takes a re-INVITE, and the session description is bound to DTLS or ICE",
  UpdateRefused: "the policy wants UPDATE, and the peer does not take it",
  Unauthorized: "the peer wants credentials that the policy does not name, or refuses them",
  CSeqSpace: "the CSeq numbers of this dialog are used up",
};

const ENDS = {
  Bye: (event) => [`${capital(side(event.side))} hung up (BYE).`, "RFC 3261 §15"],
  Expired: () => ["The session is over: nobody refreshed it in time.", "§10"],
  Response: (event) => [`The session is over: a request was answered ${event.status}, which ends it.`, "RFC 5057 §5.1"],
  Forgotten: () => ["Nothing was heard of it for so long that it is no longer tracked. Nothing was sent.", "§10"],
  RefreshFailed: (event) => [
    event.status === 408
      ? "The session is over: a refresh of the sidecar got no answer (408)."
      : `The session is over: a refresh of the sidecar was answered ${event.status}.`,
    "§10, RFC 3261 §12.2.1.2",
  ],
  AppGone: () => ["The session is over: the application no longer has the call.", "RFC 3261 §12.2.1.2"],
  Requested: () => ["The session was ended because somebody asked for it.", "RFC 3261 §15"],
};

// [what happened, where to read about it, tone]; the tone is good, warn, bad, or nothing.
const EVENTS = {
  Rejected: (e) => [
    `422 to ${side(e.side)}: it asked for ${seconds(e.asked_s)}, the least allowed is ${seconds(e.min_se_s)} (Min-SE).`,
    "§6, §8.1",
    "warn",
  ],
  RejectionSeen: (e) => [`A 422 of somebody else went to ${side(e.side)}, with Min-SE ${seconds(e.min_se_s)}.`, "§6, §7.3"],
  RejectionWithoutMinSe: (e) => [
    `A 422 of somebody else without Min-SE went to ${side(e.side)}, which cannot know what to offer.`,
    "§6",
    "warn",
  ],
  Inserted: (e) => [`Session-Expires: ${e.interval_s} was put into a request of ${side(e.side)}, which had none.`, "§8.1"],
  Lowered: (e) => [
    `Session-Expires of ${side(e.side)} was lowered from ${seconds(e.asked_s)} to ${seconds(e.interval_s)}.`,
    "§8.1",
  ],
  Raised: (e) => [
    `Session-Expires of ${side(e.side)} was raised from ${seconds(e.asked_s)} to ${seconds(e.interval_s)}, since it does not know 422.`,
    "§8.1",
  ],
  MinSeRaised: (e) => [`Min-SE of ${side(e.side)} was raised to ${seconds(e.min_se_s)}.`, "§8.1"],
  RefresherChosen: (e) => [`The request named no refresher; ${side(e.refresher)} was named.`, "§7.1"],
  Completed: (e) => [
    `The 2xx to ${side(e.side)} had no Session-Expires; the sidecar added ${seconds(e.interval_s)}.`,
    "§8.2",
  ],
  Malformed: (e) => [`${e.reason} of ${side(e.side)} cannot be read; it was left as it is.`, "§4, §5", "warn"],
  ShortInterval: (e) => [`The 2xx has an interval of ${seconds(e.interval_s)}, below the policy's minimum.`, "§5", "warn"],
  RefresherUnclear: (e) => [
    `The 2xx names no refresher, or one that cannot be; ${side(e.refresher)} is taken for it.`,
    "§7.2, §9",
    "warn",
  ],
  Established: (e) => [
    e.interval_s === undefined
      ? "The call was answered (2xx). It has no session timer."
      : `The call was answered (2xx): session interval ${seconds(e.interval_s)}, refreshed by ${side(e.refresher)}.`,
    "§7.2, §9",
    "good",
  ],
  Refreshed: (e) => [
    `Refreshed by ${side(e.side)} with ${e.method}: ${seconds(e.interval_s)} more, next by ${side(e.refresher)}.`,
    "§7.4, §10",
    "good",
  ],
  TimerOff: (e) => [`A 2xx to ${side(e.side)} without Session-Expires turned the timer off.`, "§7.2", "warn"],
  RefreshFailed: (e) => [`A refresh of ${side(e.side)} was answered ${e.status}; the timer runs on.`, "§7.4, §10", "warn"],
  Expired: (e) => [
    `No refresh came within the session interval of ${seconds(e.interval_s)}; ${side(e.refresher)} should have sent one.`,
    "§10",
    "bad",
  ],
  ByeSent: (e) => [`BYE sent to ${side(e.side)}.`, "§10, RFC 3326", "bad"],
  ByeDone: (e) => [
    e.reason === "TimedOut"
      ? `The BYE to ${side(e.side)} got no answer within 32 s.`
      : `${capital(side(e.side))} answered the BYE with ${e.status}.`,
    "RFC 3261 §15.1",
    e.reason === "TimedOut" ? "warn" : undefined,
  ],
  LateRequest: (e) => [`${e.method} of ${side(e.side)} came after the end and was answered 481.`, "RFC 3261 §12.2.2", "warn"],
  Ended: (e) => [...(ENDS[e.reason]?.(e) ?? [`The session is over (${e.reason}).`, ""]), e.reason === "Bye" ? undefined : "bad"],
  UnknownDialog: (e) => [`A request of ${side(e.side)} in a dialog that nobody here saw begin passed untouched.`, "RFC 3261 §12.2", "warn"],
  LimitReached: (e) => [`A limit was reached (${e.reason}); what is beyond it goes on without a timer.`, "", "warn"],
  ActsForApp: () => ["From here on the sidecar keeps the session timer in the application's place.", "§7, §9"],
  Retried: (e) => [
    `The 422 to the application's request was answered with another try, offering ${seconds(e.interval_s)}.`,
    "§7.3",
  ],
  RefreshSent: (e) => [`The sidecar sent a refresh to ${side(e.side)} with ${e.method}.`, "§7.4"],
  NotRefreshed: (e) => [
    `The sidecar cannot refresh: ${NOT_REFRESHED[e.reason] ?? e.reason}.`,
    "§7.4, RFC 3311 §5.1",
    "warn",
  ],
  AnsweredForApp: (e) => [`${e.method} of ${side(e.side)} was answered 200 in the application's place.`, "§9"],
  ProbeSent: () => ["The application was asked (OPTIONS) whether it still has the call.", "RFC 3261 §11"],
  ProbeFailed: (e) => [
    e.status === 408 ? "The application did not answer whether it still has the call." : `The application answered ${e.status} when asked for the call.`,
    "RFC 3261 §12.2.1.2",
    "warn",
  ],
  Glare: (e) => [`${e.method} of ${side(e.side)} met one of the sidecar's and was answered 491.`, "RFC 3261 §14.2"],
  MediaChanged: () => ["The answer to a refresh of the sidecar describes other media than the application knows.", "RFC 3264 §8", "warn"],
  Challenged: (e) => [`A refresh of the sidecar was challenged with ${e.status}.`, "RFC 3261 §22", "warn"],
};

/** An event in words: `{ text, section, tone }`. One that this page does not know is shown as it came. */
export function eventWords(event) {
  const words = EVENTS[event.kind];
  if (!words) return { text: JSON.stringify(event), section: "" };
  const [text, section, tone] = words(event);
  return { text: event.observed ? `Observed only, not done: ${text}` : text, section: full(section), tone };
}

/** `§10` as `RFC 4028 §10`. */
const full = (section) => (section.startsWith("§") ? `RFC 4028 ${section}` : section);

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
