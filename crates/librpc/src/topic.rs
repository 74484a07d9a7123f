//! Topics and the patterns that match them: levels joined by `/`.
//!
//! A level of a pattern is a text that matches itself, `*` for exactly one level, or `**` for any number of levels,
//! including none.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::schema::InvalidSchema;

/// The longest topic or pattern, in bytes.
pub const MAX_TOPIC_BYTES: usize = 255;

/// The most topics of one outbox.
pub const MAX_TOPICS: usize = 65_536;
/// The most patterns of one subscription.
pub const MAX_PATTERNS: usize = 64;

const ONE: &str = "*";
const ANY: &str = "**";

/// Why a text is not a valid topic or pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTopic {
    /// It is empty, or has an empty level.
    #[error("topic {topic:?} has an empty level: levels are joined by single slashes, as in \"group/topic\"")]
    EmptyLevel {
        /// The text.
        topic: Arc<str>,
    },
    /// It is too long.
    #[error("topic {topic:?} has {} bytes; the limit is {MAX_TOPIC_BYTES}", topic.len())]
    TooLong {
        /// The text.
        topic: Arc<str>,
    },
    /// It contains a control character.
    #[error("topic {topic:?} contains the control character {found:?}")]
    InvalidCharacter {
        /// The text.
        topic: Arc<str>,
        /// The first bad character.
        found: char,
    },
    /// The outbox has reached its limit of topics.
    #[error("topic {topic:?} is one too many: an outbox can have {MAX_TOPICS}")]
    TooMany {
        /// The text.
        topic: Arc<str>,
    },
    /// The outbox publishes on this topic already, as another type.
    #[error("topic {topic:?} has another type in this outbox already")]
    OtherType {
        /// The text.
        topic: Arc<str>,
    },
    /// The type of its messages has no valid name.
    #[error(transparent)]
    Type(#[from] InvalidSchema),
    /// A topic to publish on contains a `*`, or a pattern has one together with other characters of a level.
    #[error(
        "topic {topic:?} has a misplaced `*`: only a subscriber's pattern has \"*\" or \"**\", each as a whole level"
    )]
    Star {
        /// The text.
        topic: Arc<str>,
    },
    /// A level of a pattern is a wildcard of MQTT or NATS, and would match only itself here.
    #[error(
        "pattern {topic:?} has the wildcard of another system: \"*\" is one level, \"**\" any number, so write {spelling:?}"
    )]
    OtherWildcard {
        /// The text.
        topic: Arc<str>,
        /// The same pattern with the wildcards of this library.
        spelling: Arc<str>,
    },
}

fn check(text: &str, is_level: impl Fn(&str) -> bool) -> Result<(), InvalidTopic> {
    let topic = || Arc::<str>::from(text);
    if text.len() > MAX_TOPIC_BYTES {
        return Err(InvalidTopic::TooLong { topic: topic() });
    }
    if let Some(found) = text.chars().find(|c| c.is_control()) {
        return Err(InvalidTopic::InvalidCharacter { topic: topic(), found });
    }
    for level in text.split('/') {
        if level.is_empty() {
            return Err(InvalidTopic::EmptyLevel { topic: topic() });
        }
        if level.contains('*') && !is_level(level) {
            return Err(InvalidTopic::Star { topic: topic() });
        }
    }
    Ok(())
}

/// Checks a topic to publish on: 1 to 255 bytes, no empty level, no `*`, no control characters.
pub(crate) fn check_topic(topic: &str) -> Result<(), InvalidTopic> {
    check(topic, |_| false)
}

/// Which topics a subscriber wants: `*` is exactly one level, `**` any number of levels, including none.
///
/// The wildcards of MQTT and NATS (`+`, `#`, `>`) as a whole level are an error when a text is parsed. A topic may have such a
/// level: `*` matches it.
///
/// ```
/// let pattern: librpc::Pattern = "sensor/*/temperature".parse()?;
/// assert!(pattern.matches("sensor/kitchen/temperature"));
/// assert!(!pattern.matches("sensor/temperature"));
/// assert!("sensor/**".parse::<librpc::Pattern>()?.matches("sensor"));
/// # Ok::<(), librpc::InvalidTopic>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A pattern that another node has listed. It may be of an older version, which took every level for a text.
    pub(crate) fn listed(text: &str) -> Result<Self, InvalidTopic> {
        check(text, |level| level == ONE || level == ANY)?;
        Ok(Self(text.into()))
    }

    /// Whether a topic matches.
    pub fn matches(&self, topic: &str) -> bool {
        let (mut pattern, mut levels) = (self.0.split('/'), topic.split('/'));
        // Where to continue when the text after the last `**` does not match: the `**` then takes one more level.
        let mut last_any: Option<(std::str::Split<'_, char>, std::str::Split<'_, char>)> = None;
        loop {
            match (pattern.next(), levels.clone().next()) {
                (Some(ANY), _) => last_any = Some((pattern.clone(), levels.clone())),
                (Some(wanted), Some(level)) if wanted == ONE || wanted == level => drop(levels.next()),
                (None, None) => return true,
                _ => {
                    let Some((behind, from)) = &mut last_any else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    (pattern, levels) = (behind.clone(), from.clone());
                }
            }
        }
    }
}

impl FromStr for Pattern {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        let pattern = Self::listed(text)?;
        match with_our_wildcards(text) {
            spelling if spelling == text => Ok(pattern),
            spelling => Err(InvalidTopic::OtherWildcard { topic: pattern.0, spelling: spelling.into() }),
        }
    }
}

/// The pattern with the wildcards of this library in place of those of MQTT and NATS.
fn with_our_wildcards(text: &str) -> String {
    let ours = |level| match level {
        "+" => ONE,
        "#" | ">" => ANY,
        other => other,
    };
    text.split('/').map(ours).collect::<Vec<_>>().join("/")
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn topics_and_patterns_are_checked() {
        for good in ["a", "group/topic", "Küche/1 2/.x", &"t".repeat(255)] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        assert_eq!(check_topic(""), Err(InvalidTopic::EmptyLevel { topic: "".into() }));
        for bad in ["/a", "a/", "a//b", "/"] {
            assert_eq!(check_topic(bad), Err(InvalidTopic::EmptyLevel { topic: bad.into() }));
        }
        for bad in ["*", "a/**", "a*"] {
            assert_eq!(check_topic(bad), Err(InvalidTopic::Star { topic: bad.into() }));
        }
        assert_eq!(check_topic(&"t".repeat(256)), Err(InvalidTopic::TooLong { topic: "t".repeat(256).into() }));
        assert_eq!(check_topic("a\nb"), Err(InvalidTopic::InvalidCharacter { topic: "a\nb".into(), found: '\n' }));
        for good in ["*", "**", "a/*/b/**", "**/a"] {
            assert!(good.parse::<Pattern>().is_ok(), "{good}");
        }
        for bad in ["***", "a*", "*a/b"] {
            assert_eq!(bad.parse::<Pattern>(), Err(InvalidTopic::Star { topic: bad.into() }));
        }
    }

    #[test]
    fn the_wildcards_of_other_systems_are_refused_as_levels_of_a_pattern() {
        for (bad, spelling) in [
            ("+", "*"),
            ("sensor/+/t", "sensor/*/t"),
            ("+/*/+", "*/*/*"),
            ("a/#", "a/**"),
            ("#", "**"),
            ("a/>", "a/**"),
            ("a/+/#", "a/*/**"),
        ] {
            let refused = bad.parse::<Pattern>().unwrap_err();
            assert_eq!(refused, InvalidTopic::OtherWildcard { topic: bad.into(), spelling: spelling.into() });
            assert!(refused.to_string().ends_with(&format!("write {spelling:?}")), "{refused}");
            assert!(spelling.parse::<Pattern>().is_ok(), "{spelling}");
            if !bad.contains('*') {
                assert_eq!(check_topic(bad), Ok(()), "a topic may have any text as a level: {bad}");
            }
            assert_eq!(Pattern::listed(bad).unwrap().as_str(), bad, "an older node may have such a pattern");
        }
        for good in ["c++", "a/c#", "#1/t", "a->b", "++", "##", ">>"] {
            assert!(good.parse::<Pattern>().unwrap().matches(good), "{good}");
        }
        assert!("a/*".parse::<Pattern>().unwrap().matches("a/+"));
    }

    /// The definition, followed word by word, without regard to speed.
    fn reference(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], []) => true,
            ([ANY, rest @ ..], _) => (0..=topic.len()).any(|skipped| reference(rest, &topic[skipped..])),
            ([wanted, rest @ ..], [level, others @ ..]) => {
                (*wanted == ONE || wanted == level) && reference(rest, others)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 1..7),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..8),
        ) {
            let parsed: Pattern = pattern.join("/").parse().unwrap();
            prop_assert_eq!(parsed.matches(&topic.join("/")), reference(&pattern, &topic));
        }
    }
}
