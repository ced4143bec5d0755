//! How durable messages are to be whose publishers say nothing of it.

use tidemill_proto::{Durability, TopicName, TopicSelector};

/// What is set for the node, and for topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durabilities {
    /// Of all other topics.
    pub node: Durability,
    /// Of these; the first that matches counts.
    pub topics: Vec<(TopicSelector, Durability)>,
}

impl Durabilities {
    /// Returns that of a topic.
    #[must_use]
    pub fn of(&self, topic: &TopicName) -> Durability {
        let own = self.topics.iter().find(|(topics, _)| topics.matches(topic));
        own.map_or(self.node, |(_, durability)| *durability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_matches_a_topic_counts_and_else_that_of_the_node() {
        let parse = |text| Durability::parse(text).expect("a durability");
        let rule = |topics, text| (TopicSelector::parse(topics).expect("a selector"), parse(text));
        let rules = Durabilities {
            node: parse("replicas=1"),
            topics: vec![
                rule("orders.new", "accepted"),
                rule("orders.*", "fsync"),
                rule("*", "fsync, replicas=2"),
            ],
        };
        let of = |topic| rules.of(&TopicName::parse(topic).expect("a name")).to_string();
        assert_eq!(of("orders.new"), "accepted");
        assert_eq!(of("orders.old"), "fsync");
        assert_eq!(of("orders"), "fsync, replicas=2");
        let rules = Durabilities { topics: Vec::new(), ..rules };
        assert_eq!(rules.of(&TopicName::parse("orders").expect("a name")).to_string(), "replicas=1");
    }
}
