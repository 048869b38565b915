//! Listens to what the upstream says of itself.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::sleep;

use super::Channel;
use crate::backend::During;
use crate::backend::upstream::patience::{FIRST_PAUSE, LONGEST_PAUSE, Patience};
use crate::backend::upstream::refusal::UpstreamRefusal;
use crate::backend::upstream::wire::{Answer, EventBody, LAST_EVENT, SESSION};
use crate::caller::Caller;
use crate::wire::jsonrpc::Message;

/// Between two tries at an upstream that refuses, at most: it is up, and will not change its mind
/// every second.
const LONGEST_REFUSED: Duration = Duration::from_secs(30);

/// Where a stream was left.
#[derive(Default)]
struct StreamPlace {
    /// In which session, by how often that was begun again.
    epoch: u64,
    /// Behind which event.
    last: Option<HeaderValue>,
    /// How long to stay away now, and at first after something was heard.
    pause: Duration,
    first: Duration,
}

impl Channel {
    /// Listens to whatever belongs to no call, until the upstream says that it has no such stream.
    pub(in crate::backend::upstream) async fn listen(&self, caller: &Caller) {
        let mut place =
            StreamPlace { pause: FIRST_PAUSE, first: FIRST_PAUSE, ..StreamPlace::default() };
        loop {
            let (session, epoch, whole) = self.session();
            let listening = if whole {
                if place.epoch != epoch {
                    // Another session's events have other ids.
                    place = StreamPlace { epoch, last: None, ..place };
                }
                let mut session = HeaderMap::clone(&session);
                if let Some(last) = place.last.clone() {
                    session.insert(LAST_EVENT, last);
                }
                self.shared.wire.listen(&session, caller).await
            } else {
                self.begin_anew(epoch, caller).await;
                continue;
            };
            match listening {
                Ok(Answer::Events(events)) => self.hear_all(events, &mut place, caller).await,
                Ok(Answer::Refused(refusal)) => {
                    let known = session.contains_key(SESSION);
                    if known && refusal.is_lost_session(None) {
                        self.begin_anew(epoch, caller).await;
                    } else if has_no_stream(&refusal) {
                        return tracing::debug!(
                            text = refusal.text(),
                            "no stream of the upstream's"
                        );
                    } else {
                        // It is busy, or still has the stream that broke off, or does not know the
                        // event.
                        place.last = None;
                        place.pause = (place.pause * 2).min(LONGEST_REFUSED);
                    }
                }
                Ok(Answer::Json(_) | Answer::Accepted { .. }) => return,
                Err(fault) => tracing::debug!(%fault, "the upstream's stream is down"),
            }
            sleep(place.pause).await;
            place.pause = (place.pause * 2).min(place.pause.max(LONGEST_PAUSE));
        }
    }

    /// Begins the session anew, or waits a moment: it is down for longer than calls wait.
    async fn begin_anew(&self, epoch: u64, caller: &Caller) {
        let mut patience = Patience::new(self.shared.wait);
        if let Err(why) = Box::pin(self.renew(epoch, caller, &mut patience)).await {
            tracing::debug!(text = why.text, "the session is still lost");
            sleep(LONGEST_PAUSE).await;
        }
    }

    async fn hear_all(&self, mut events: Box<EventBody>, place: &mut StreamPlace, caller: &Caller) {
        while let Ok(Some(event)) = events.next().await {
            if let Some(seen) = event.id {
                place.last = HeaderValue::try_from(&*seen).ok();
            }
            if let Some(retry) = event.retry {
                place.first = retry.max(FIRST_PAUSE);
                place.pause = place.first;
            }
            if let Some(Ok(message)) = event.data.map(Message::parse) {
                place.pause = place.first;
                self.receive(message, During::NoCall, place.epoch, caller).await;
            }
        }
    }
}

/// Will there never be a stream? Whatever else it says may be otherwise in a moment.
fn has_no_stream(refusal: &UpstreamRefusal) -> bool {
    let never = [
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::NOT_FOUND,
        StatusCode::NOT_ACCEPTABLE,
        StatusCode::NOT_IMPLEMENTED,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
    ];
    never.contains(&refusal.status)
}
