//! Topics and the patterns that match them: levels joined by `/`.
//!
//! A pattern's level is a text that matches itself, `*` for exactly one level, or `**` for any number of them, none too.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest topic or pattern, in bytes.
pub const MAX_TOPIC_BYTES: usize = 255;

/// The most topics of one outbox.
pub const MAX_TOPICS: usize = 65_536;
/// The most patterns of one subscription.
pub const MAX_PATTERNS: usize = 64;

const ONE: &str = "*";
const ANY: &str = "**";

/// Why a text is no topic, or no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTopic {
    /// It is empty, or has an empty level.
    #[error("topic {topic:?} has an empty level: levels are joined by single slashes, as in \"group/topic\"")]
    EmptyLevel {
        /// The text.
        topic: String,
    },
    /// It is too long.
    #[error("topic {topic:?} has {} bytes, of at most {MAX_TOPIC_BYTES}", topic.len())]
    TooLong {
        /// The text.
        topic: String,
    },
    /// It bears a control character.
    #[error("topic {topic:?} has the control character {found:?} in it")]
    BadCharacter {
        /// The text.
        topic: String,
        /// The first bad character.
        found: char,
    },
    /// The outbox has as many topics as there can be.
    #[error("topic {topic:?} is one too many: an outbox has at most {MAX_TOPICS}")]
    TooMany {
        /// The text.
        topic: String,
    },
    /// A topic to publish on has a `*` in it, or a pattern one beside other characters of a level.
    #[error("topic {topic:?} has a `*` that is no level of a pattern: \"*\" and \"**\" stand alone, for subscribers")]
    Star {
        /// The text.
        topic: String,
    },
}

fn check(text: &str, is_level: impl Fn(&str) -> bool) -> Result<(), BadTopic> {
    let topic = || text.to_owned();
    if text.len() > MAX_TOPIC_BYTES {
        return Err(BadTopic::TooLong { topic: topic() });
    }
    if let Some(found) = text.chars().find(|c| c.is_control()) {
        return Err(BadTopic::BadCharacter { topic: topic(), found });
    }
    for level in text.split('/') {
        if level.is_empty() {
            return Err(BadTopic::EmptyLevel { topic: topic() });
        }
        if level.contains('*') && !is_level(level) {
            return Err(BadTopic::Star { topic: topic() });
        }
    }
    Ok(())
}

/// Checks a topic to publish on: 1 to 255 bytes, no empty level, no `*`, no control characters.
pub(crate) fn check_topic(topic: &str) -> Result<(), BadTopic> {
    check(topic, |_| false)
}

/// Which topics a subscriber wants: `*` stands for one level, `**` for any number of levels, none too.
///
/// ```
/// let pattern: librpc::Pattern = "sensor/*/temperature".parse()?;
/// assert!(pattern.matches("sensor/kitchen/temperature"));
/// assert!(!pattern.matches("sensor/temperature"));
/// assert!("sensor/**".parse::<librpc::Pattern>()?.matches("sensor"));
/// # Ok::<(), librpc::BadTopic>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a topic matches.
    pub fn matches(&self, topic: &str) -> bool {
        let (mut pattern, mut levels) = (self.0.split('/'), topic.split('/'));
        // Where to go on when what follows the last `**` does not match: it then stands for one level more.
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
    type Err = BadTopic;

    fn from_str(text: &str) -> Result<Self, BadTopic> {
        check(text, |level| level == ONE || level == ANY)?;
        Ok(Self(text.into()))
    }
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
        assert_eq!(check_topic(""), Err(BadTopic::EmptyLevel { topic: String::new() }));
        for bad in ["/a", "a/", "a//b", "/"] {
            assert_eq!(check_topic(bad), Err(BadTopic::EmptyLevel { topic: bad.into() }));
        }
        for bad in ["*", "a/**", "a*"] {
            assert_eq!(check_topic(bad), Err(BadTopic::Star { topic: bad.into() }));
        }
        assert_eq!(check_topic(&"t".repeat(256)), Err(BadTopic::TooLong { topic: "t".repeat(256) }));
        assert_eq!(check_topic("a\nb"), Err(BadTopic::BadCharacter { topic: "a\nb".into(), found: '\n' }));
        for good in ["*", "**", "a/*/b/**", "**/a"] {
            assert!(good.parse::<Pattern>().is_ok(), "{good}");
        }
        for bad in ["***", "a*", "*a/b"] {
            assert_eq!(bad.parse::<Pattern>(), Err(BadTopic::Star { topic: bad.into() }));
        }
    }

    /// What the words of the definition say, without any care for speed.
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
