//! Listens to what the upstream says of itself.

use http::{HeaderMap, HeaderValue};
use tokio::time::sleep;

use super::Channel;
use crate::backend::During;
use crate::backend::upstream::patience::{FIRST_PAUSE, LONGEST_PAUSE, Patience};
use crate::backend::upstream::wire::{Answer, LAST_EVENT, SESSION};
use crate::caller::Caller;
use crate::jsonrpc::Message;

impl Channel {
    /// Listens to whatever belongs to no call, until the upstream says that it has no such stream.
    pub(in crate::backend::upstream) async fn listen(&self, caller: &Caller) {
        let mut last: Option<HeaderValue> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let (session, epoch) = self.session();
            let mut session = HeaderMap::clone(&session);
            if let Some(last) = last.clone() {
                drop(session.insert(LAST_EVENT, last));
            }
            match self.shared.wire.listen(&session, caller).await {
                Ok(Answer::Events(mut events)) => {
                    pause = FIRST_PAUSE;
                    while let Ok(Some(event)) = events.next().await {
                        if let Some(seen) = event.id {
                            last = HeaderValue::try_from(&*seen).ok();
                        }
                        pause = event.retry.unwrap_or(pause);
                        let data = event.data.filter(|data| !data.is_empty());
                        if let Some(Ok(message)) = data.map(Message::parse) {
                            self.hear(message, During::NoCall, epoch, caller).await;
                        }
                    }
                }
                Ok(Answer::Refused(refusal)) => {
                    last = None;
                    let mut patience = Patience::new(self.shared.wait);
                    let forgot = session.contains_key(SESSION) && refusal.is_lost_session();
                    if !forgot || self.renew(epoch, caller, &mut patience).await.is_err() {
                        return tracing::debug!(
                            text = refusal.text(),
                            "no stream of the upstream's"
                        );
                    }
                }
                Ok(Answer::Json(_) | Answer::Accepted) => return,
                Err(fault) => tracing::debug!(%fault, "the upstream's stream is down"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
