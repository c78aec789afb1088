//! A length of time in whole seconds, written as people and Kubernetes' CEL both read it: `90s`, `30m`, `1h30m`.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in whole seconds, at most `99999h59m59s`.
///
/// Parsing takes `<h>h<m>m<s>s` with leading and trailing parts left out; minutes and seconds that follow a greater unit
/// stay below 60. Printing is canonical: the greatest units first, except that what is under two minutes and not a whole
/// minute stays in seconds, since session timers are spoken of as `90s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(u32);

impl Duration {
    /// The longest one. It lies below 2^31 seconds, so that sums of a few fit in any counter of ours.
    pub const MAX: Self = Self(99_999 * 3600 + 59 * 60 + 59);

    /// What [`FromStr`] takes, as the schema states it.
    pub const PATTERN: &str = "^([0-9]{1,5}h([0-5]?[0-9]m)?([0-5]?[0-9]s)?|[0-9]{1,6}m([0-5]?[0-9]s)?|[0-9]{1,6}s)$";

    /// The length of the longest string that [`Self::PATTERN`] matches.
    pub const MAX_LENGTH: u32 = 12;

    /// `secs` seconds, or none if that is beyond [`Self::MAX`].
    pub const fn from_secs(secs: u32) -> Option<Self> {
        if secs <= Self::MAX.0 { Some(Self(secs)) } else { None }
    }

    /// The whole length in seconds.
    pub const fn secs(self) -> u32 {
        self.0
    }

    /// A third of it, in whole seconds.
    pub(crate) const fn third(self) -> Self {
        Self(self.0 / 3)
    }

    pub(crate) const fn constant(secs: u32) -> Self {
        assert!(secs <= Self::MAX.0);
        Self(secs)
    }
}

/// The text is not a [`Duration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseDurationError;

impl fmt::Display for ParseDurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a duration; write it as 90s, 30m, 1h30m or 2h, at most {}", Duration::MAX)
    }
}

impl std::error::Error for ParseDurationError {}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut secs = 0;
        let mut leading = true;
        for (unit, unit_secs, digits) in [('h', 3600, 5), ('m', 60, 6), ('s', 1, 6)] {
            let Some((number, after)) = rest.split_once(unit) else { continue };
            let fits = (1..=if leading { digits } else { 2 }).contains(&number.len());
            if !fits || !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(ParseDurationError);
            }
            let value: u32 = number.parse().map_err(|_| ParseDurationError)?;
            if !leading && value >= 60 {
                return Err(ParseDurationError);
            }
            secs += value * unit_secs;
            rest = after;
            leading = false;
        }
        if leading || !rest.is_empty() { Err(ParseDurationError) } else { Ok(Self(secs)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (h, m, s) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        if self.0 < 120 && s != 0 || self.0 == 0 {
            return write!(f, "{}s", self.0);
        }
        for (value, unit) in [(h, 'h'), (m, 'm'), (s, 's')] {
            if value > 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText::new("a duration such as 90s, 30m or 1h30m"))
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "maxLength": Self::MAX_LENGTH })
    }
}

/// Reads a string by [`FromStr`]; holds what to call it when there is something else than a string.
pub(crate) struct FromText<T> {
    expected: &'static str,
    parsed: PhantomData<T>,
}

impl<T> FromText<T> {
    pub(crate) fn new(expected: &'static str) -> Self {
        Self { expected, parsed: PhantomData }
    }
}

impl<T: FromStr> de::Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_print_as_people_write_them() {
        let cases = [
            (0, "0s"),
            (5, "5s"),
            (60, "1m"),
            (90, "90s"),
            (120, "2m"),
            (150, "2m30s"),
            (1800, "30m"),
            (5400, "1h30m"),
            (7200, "2h"),
            (3601, "1h1s"),
            (Duration::MAX.secs(), "99999h59m59s"),
        ];
        for (secs, text) in cases {
            assert_eq!(Duration(secs).to_string(), text);
            assert_eq!(text.parse(), Ok(Duration(secs)));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let texts = [
            "",
            "s",
            "90",
            "-90s",
            "+90s",
            "1.5h",
            "90 s",
            " 90s",
            "90S",
            "1d",
            "90ms",
            "1m90s",
            "1h60m",
            "30m1h",
            "1h1h",
            "100000h",
            "1000000s",
            "4294967296s",
            "1h30",
            "٣s",
        ];
        for text in texts {
            assert_eq!(text.parse::<Duration>(), Err(ParseDurationError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_durations_are_read_back(secs in 0..=Duration::MAX.secs()) {
            let duration = Duration(secs);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            prop_assert!(duration.to_string().len() <= Duration::MAX_LENGTH as usize);
        }

        #[test]
        fn whatever_the_pattern_allows_is_read(text in &Duration::PATTERN[1..Duration::PATTERN.len() - 1]) {
            let duration: Duration = text.parse().expect("the pattern matched");
            prop_assert!(duration <= Duration::MAX);
        }
    }
}
