//! RFC 4028 as an agent lives it, written from the RFC alone.

use super::message::{Sip, Style};
use super::rng::Rng;

/// The least interval there is (§4, §5).
pub const LEAST: u32 = 90;

/// Who refreshes, as the transaction that says it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Uac,
    Uas,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Uac => "uac",
            Role::Uas => "uas",
        }
    }
}

/// A Session-Expires that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    pub delta: u32,
    pub refresher: Option<Role>,
}

/// There is a Session-Expires, but nobody can tell what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl SessionExpires {
    /// `None`: absent.
    pub fn of(sip: &Sip) -> Result<Option<SessionExpires>, Unreadable> {
        let mut all = sip.all("Session-Expires");
        let Some(value) = all.next() else { return Ok(None) };
        let mut parts = value.split(';');
        let delta = parts.next().unwrap_or_default().trim().parse().map_err(|_| Unreadable)?;
        let mut refresher = None;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if name.trim().eq_ignore_ascii_case("refresher") {
                refresher = Some(match value.trim().to_ascii_lowercase().as_str() {
                    "uac" => Role::Uac,
                    "uas" => Role::Uas,
                    _ => return Err(Unreadable),
                });
            }
        }
        if all.next().is_some() { Err(Unreadable) } else { Ok(Some(SessionExpires { delta, refresher })) }
    }

    /// The header value in an agent's hand.
    pub fn written(self, style: Style) -> String {
        let semicolon = match (style.folded, style.spaced) {
            (true, _) => "\r\n ; ",
            (false, true) => " ; ",
            (false, false) => ";",
        };
        let name = if style.upper { "REFRESHER" } else { "refresher" };
        let equal = if style.spaced { " = " } else { "=" };
        let value = |role: Role| if style.upper { role.as_str().to_uppercase() } else { role.as_str().to_owned() };
        let refresher = self.refresher.map(|role| format!("{semicolon}{name}{equal}{}", value(role)));
        format!("{}{}", self.delta, refresher.unwrap_or_default())
    }
}

/// Min-SE; unreadable counts as absent.
pub fn min_se_of(sip: &Sip) -> Option<u32> {
    sip.get("Min-SE")?.split(';').next()?.trim().parse().ok()
}

/// What an agent wants of session timers.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Session-Expires in its own requests.
    pub interval: Option<u32>,
    /// Below it: 422.
    pub least: u32,
    /// `refresher` in its initial INVITE.
    pub asks: Option<Role>,
    /// Whom it names in a 2xx where the request leaves it open.
    pub chooses: Role,
    /// Wants a timer even where the request asks for none (§9).
    pub insists: bool,
    /// Sends a BYE itself when it sees no refresh (§10).
    pub guards: bool,
    /// Leaves the refresher out of its 2xx.
    pub sloppy: bool,
    /// Asks for something else at times.
    pub wavers: bool,
}

impl Wishes {
    /// Asks for `interval`, leaves the refresher open, names itself as a UAS, relies on others to hang up.
    pub fn plain(interval: Option<u32>) -> Wishes {
        Wishes {
            interval,
            least: LEAST,
            asks: None,
            chooses: Role::Uas,
            insists: false,
            guards: false,
            sloppy: false,
            wavers: false,
        }
    }

    pub fn random(rng: &mut Rng) -> Wishes {
        let least = rng.pick(&[LEAST, LEAST, LEAST, 120, 300, 2400]);
        let interval = rng.maybe(75, |rng| rng.pick(&[30, 90, 100, 180, 600, 1800, 1800, 7200]));
        Wishes {
            // Asking for less than one's own Min-SE would be contradictory.
            interval: interval.map(|interval| if least > LEAST { interval.max(least) } else { interval }),
            least,
            asks: rng.maybe(50, |rng| rng.pick(&[Role::Uac, Role::Uas])),
            chooses: rng.pick(&[Role::Uac, Role::Uas]),
            insists: rng.chance(30),
            guards: rng.chance(40),
            sloppy: rng.chance(5),
            wavers: true,
        }
    }
}

/// A session timer that runs in a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub interval: u32,
    pub we_refresh: bool,
    pub armed_at: u64,
}

impl Running {
    /// From the Session-Expires of a 2xx; `we` is our role in its transaction.
    pub fn from_2xx(now: u64, answer: SessionExpires, we: Role, asked: Option<Role>) -> Running {
        let refresher = answer.refresher.or(asked).unwrap_or(Role::Uac);
        Running { interval: answer.delta.max(LEAST), we_refresh: refresher == we, armed_at: now }
    }

    /// Half the interval (§10).
    pub fn refresh_at(&self) -> u64 {
        self.armed_at + u64::from(self.interval) * 500
    }

    /// min(32 s, a third of the interval) before the end (§10).
    pub fn gives_up_at(&self) -> u64 {
        let interval = u64::from(self.interval) * 1000;
        self.armed_at + interval - (interval / 3).min(32_000)
    }
}

/// The Session-Expires of a request in a dialog where `running` runs and a 422 once asked for `min_se` (§7.4).
pub fn asked_again(wishes: &Wishes, running: Option<Running>, min_se: u32, rng: &mut Rng) -> Option<SessionExpires> {
    let refresher = running.and_then(|running| {
        let role = if running.we_refresh { Role::Uac } else { Role::Uas };
        (!wishes.wavers || rng.chance(80)).then_some(role)
    });
    let interval = running.map(|running| running.interval).or(wishes.interval)?;
    let interval = if !wishes.wavers || rng.chance(85) { interval } else { rng.pick(&[90, 150, 1800]) };
    Some(SessionExpires { delta: interval.max(min_se), refresher })
}

/// The Min-SE of the 422 that a UAS owes this request (§9).
pub fn too_small(wishes: &Wishes, request: &Sip) -> Option<u32> {
    let asked = SessionExpires::of(request).ok().flatten()?;
    (asked.delta < wishes.least && request.lists("Supported", "timer")).then_some(wishes.least)
}

/// The Session-Expires of a UAS's 2xx (§9, table 2).
pub fn answer(wishes: &Wishes, request: &Sip, rng: &mut Rng) -> Option<SessionExpires> {
    let uac_knows = request.lists("Supported", "timer");
    let floor = min_se_of(request).unwrap_or(LEAST).max(wishes.least);
    match SessionExpires::of(request).ok()? {
        Some(asked) => {
            let shorter = asked.delta.min(floor.max(asked.delta / 2));
            let refresher = match (uac_knows, asked.refresher) {
                (false, _) => Role::Uas,
                (true, Some(said)) => said,
                (true, None) => wishes.chooses,
            };
            let delta = if !wishes.wavers || rng.chance(70) { asked.delta } else { shorter };
            // Some forget to name the refresher, which §9 does not allow.
            let refresher = (!wishes.sloppy).then_some(refresher);
            Some(SessionExpires { delta, refresher })
        }
        None if uac_knows && wishes.insists => {
            let delta = wishes.interval.unwrap_or(1800).max(floor);
            Some(SessionExpires { delta, refresher: Some(wishes.chooses) })
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_expires_is_read_as_it_is_written_in_every_style() {
        let header = SessionExpires { delta: 1800, refresher: Some(Role::Uas) };
        for bits in 0..8 {
            let style = Style { compact: true, spaced: bits & 1 > 0, upper: bits & 2 > 0, folded: bits & 4 > 0 };
            let mut sip = Sip::request("UPDATE", "sip:b@192.0.2.1");
            sip.push("Session-Expires", &header.written(style));
            let read = Sip::parse(&sip.bytes(style)).expect("well-formed");
            assert_eq!(SessionExpires::of(&read), Ok(Some(header)));
        }
    }

    #[test]
    fn a_refresher_refreshes_before_the_other_side_gives_up() {
        let running = Running { interval: 90, we_refresh: true, armed_at: 1_000 };
        assert_eq!((running.refresh_at(), running.gives_up_at()), (46_000, 61_000));
    }
}
