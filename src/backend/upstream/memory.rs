//! What a client told its server that another server in its place must be told again.

use crate::wire::jsonrpc::{Message, RequestId};

/// Subscriptions that are kept. Whoever has more is subscribed to the newest only.
const MAX_SUBSCRIPTIONS: usize = 256;

/// The client's side of a session's state.
#[derive(Debug, Default)]
pub(super) struct Memory {
    initialize: Option<Message>,
    initialized: Option<Message>,
    level: Option<Message>,
    subscriptions: Vec<(String, Message)>,
    /// The last id of the edge's own; they count from 1 in a session that the edge has for itself.
    own: u64,
}

impl Memory {
    /// Of a client's session: the edge's own ids are unlike any client's, which count from 0 or 1,
    /// and fit into 32 bits like those.
    pub(super) fn beside_a_client() -> Self {
        let mut chance = [0; 4];
        // Without randomness there are no session ids either, and nobody comes here.
        let _filled = getrandom::fill(&mut chance);
        let chance = u32::from_le_bytes(chance) % (1 << 29);
        Self { own: (1 << 30) + u64::from(chance), ..Self::default() }
    }

    /// Notes what matters of a message that went up. Says if another had to be forgotten for it.
    pub(super) fn note(&mut self, message: &Message) -> bool {
        let slot = match message.method() {
            Some("initialize") => &mut self.initialize,
            Some("notifications/initialized") => &mut self.initialized,
            Some("logging/setLevel") => &mut self.level,
            Some("resources/subscribe") => return self.subscribe(message),
            Some("resources/unsubscribe") => {
                let uri = message.resource();
                self.subscriptions.retain(|(known, _)| Some(known) != uri.as_ref());
                return false;
            }
            Some(_) | None => return false,
        };
        *slot = Some(message.clone());
        false
    }

    fn subscribe(&mut self, message: &Message) -> bool {
        let Some(uri) = message.resource() else { return false };
        self.subscriptions.retain(|(known, _)| *known != uri);
        let full = self.subscriptions.len() >= MAX_SUBSCRIPTIONS;
        if full {
            self.subscriptions.remove(0);
        }
        self.subscriptions.push((uri, message.clone()));
        full
    }

    /// An id for a request of the edge's own. An integer: some servers know no other.
    pub(super) fn name(&mut self) -> RequestId {
        self.own += 1;
        self.own.into()
    }

    /// The `initialize` to say again, under an id of the edge's own.
    pub(super) fn initialize(&mut self) -> Option<Message> {
        let id = self.name();
        self.initialize.as_ref().map(|message| message.with_id(&id))
    }

    /// Was `initialize` noted?
    pub(super) fn is_initialized(&self) -> bool {
        self.initialize.is_some()
    }

    /// Did the client say all that comes before its first call?
    pub(super) fn is_begun(&self) -> bool {
        self.initialize.is_some() && self.initialized.is_some()
    }

    /// What follows once that is answered, in order.
    pub(super) fn rest(&mut self) -> Vec<Message> {
        let requests = self.level.iter().chain(self.subscriptions.iter().map(|(_, it)| it));
        let mut rest: Vec<Message> = self.initialized.iter().cloned().collect();
        let requests: Vec<Message> = requests.cloned().collect();
        for request in requests {
            let id = self.name();
            rest.push(request.with_id(&id));
        }
        rest
    }
}

/// Requests of an upstream are numbered from the same start each time it starts. After a restart
/// theirs get another name on the way to the client, so that its answer to a question of before
/// never passes for one to a question of now.
pub(super) mod epoch {
    use crate::limits::bytes::Quota;
    use crate::wire::jsonrpc::{Message, RequestId};

    const PREFIX: &str = "mcp-edge-";
    /// A longer id is left as it is: with the name before it, it could be longer than any may be.
    const LONGEST: usize = 256;

    /// A message of the upstream's as the client is to see it.
    pub(in crate::backend::upstream) fn outward(
        message: Message,
        epoch: u64,
        quota: &Quota,
    ) -> Message {
        match message.request_id() {
            Some(id) if epoch > 0 && id.to_string().len() <= LONGEST => {
                let named = RequestId::Text(format!("{PREFIX}{epoch}:{id}").into());
                message.with_id(&named).charged(quota)
            }
            Some(_) | None => message,
        }
    }

    /// An answer of the client's as the upstream is to see it; none if it was not this upstream
    /// that asked.
    pub(in crate::backend::upstream) fn inward(message: &Message, epoch: u64) -> Option<Message> {
        if epoch == 0 {
            // Whatever it looks like, it is a name of the upstream's own.
            return Some(message.clone());
        }
        let id = message.id()?;
        let named = match id {
            RequestId::Text(text) => text.strip_prefix(PREFIX),
            RequestId::Number(_) => None,
        };
        match named.and_then(|named| named.split_once(':')) {
            Some((of, id)) if of.parse() == Ok(epoch) => {
                RequestId::parse(id).map(|id| message.with_id(&id))
            }
            Some(_) | None if id.to_string().len() > LONGEST => Some(message.clone()),
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::limits::bytes::Quota;

    fn request(method: &str, params: &serde_json::Value) -> Message {
        Message::request(&7.into(), method, params)
    }

    #[test]
    fn what_is_said_again_is_the_last_of_each() {
        let mut memory = Memory::default();
        assert!(memory.initialize().is_none() && memory.rest().is_empty());
        memory.note(&request("initialize", &json!({"protocolVersion": "2025-06-18"})));
        memory.note(&Message::notification("notifications/initialized", &json!(null)));
        memory.note(&request("logging/setLevel", &json!({"level": "error"})));
        memory.note(&request("logging/setLevel", &json!({"level": "debug"})));
        for uri in ["a", "b", "a"] {
            memory.note(&request("resources/subscribe", &json!({ "uri": uri })));
        }
        memory.note(&request("resources/unsubscribe", &json!({"uri": "b"})));
        memory.note(&request("tools/call", &json!({"name": "x"})));
        assert_ne!(memory.initialize().unwrap().id(), Some(&7.into()));
        let rest = memory.rest();
        let methods: Vec<_> = rest.iter().filter_map(Message::method).collect();
        assert_eq!(
            methods,
            ["notifications/initialized", "logging/setLevel", "resources/subscribe"]
        );
        assert!(rest.iter().filter_map(Message::id).all(|id| *id != 7.into()));
        assert!(rest.iter().any(|it| it.params().contains("debug")));
    }

    #[test]
    fn the_edges_own_ids_are_integers_of_32_bits_and_no_clients() {
        let ids = |mut memory: Memory| [(); 3].map(|()| memory.name().to_string());
        assert_eq!(ids(Memory::default()), ["1", "2", "3"]);
        for _ in 0..100 {
            let ids = ids(Memory::beside_a_client()).map(|id| id.parse::<i32>().unwrap());
            assert!(ids[0] > 1 << 30 && ids[1] == ids[0] + 1, "{ids:?}");
        }
    }

    #[test]
    fn subscriptions_have_a_lid() {
        let mut memory = Memory::default();
        for number in 0..2 * MAX_SUBSCRIPTIONS {
            let forgot =
                memory.note(&request("resources/subscribe", &json!({ "uri": number.to_string() })));
            assert_eq!(forgot, number >= MAX_SUBSCRIPTIONS);
        }
        assert_eq!(memory.rest().len(), MAX_SUBSCRIPTIONS);
    }

    /// The client's answer to a question of this name, which must come back to the same name.
    fn answer(id: &RequestId, epoch: u64) -> Message {
        let question = Message::request(id, "roots/list", &json!({}));
        let asked = epoch::outward(question, epoch, &Quota::unbounded());
        let answer = Message::result(asked.id().unwrap(), &json!({}));
        assert_eq!(epoch::inward(&answer, epoch).unwrap().id(), Some(id), "{epoch}");
        answer
    }

    #[test]
    fn an_answer_goes_to_the_upstream_that_asked_and_to_no_other() {
        for id in [RequestId::from(0), RequestId::Text("x\"y".into())] {
            for epoch in [0, 1, 12] {
                let answer = answer(&id, epoch);
                assert!(epoch::inward(&answer, epoch + 1).is_none());
                assert!(epoch < 2 || epoch::inward(&answer, epoch - 1).is_none());
            }
        }
    }

    #[test]
    fn an_upstream_that_was_never_lost_may_name_its_questions_as_it_likes() {
        // It is an edge itself, and names them as this one does.
        for name in ["mcp-edge-1:0", "mcp-edge-0:0", "mcp-edge-1:\"x\"", "mcp-edge-x"] {
            let id = RequestId::Text(name.into());
            for epoch in [0, 1, 2] {
                answer(&id, epoch);
            }
        }
    }

    #[test]
    fn an_answer_under_a_long_name_is_handed_on() {
        for length in [253, 254, 255, 256, 300, 1000] {
            let id = RequestId::Text("\"".repeat(length / 2).into());
            for epoch in [0, 1, 12] {
                answer(&id, epoch);
            }
        }
    }
}
