//! Begins a session again that the upstream lost, with what the client said at its beginning.

use http::HeaderMap;
use tokio::time::timeout;

use super::{Channel, Try, Unanswered};
use crate::backend::upstream::patience::Patience;
use crate::caller::Caller;
use crate::client::SendError;
use crate::wire::jsonrpc::Message;

impl Channel {
    /// Begins the session anew, unless somebody did since `epoch`.
    pub(in crate::backend::upstream) async fn renew(
        &self,
        epoch: u64,
        caller: &Caller,
        patience: &mut Patience,
    ) -> Result<(), Unanswered> {
        let mut renewing = patience.turn(&self.renewing).await;
        if self.epoch() != epoch {
            return Ok(());
        }
        if let Some(text) = renewing.clone().filter(|_| patience.is_over()) {
            return Err(text.into());
        }
        // Dropped on the way, it is left so: whoever comes next begins anew.
        self.state.lock().half = true;
        let renewed = self.begin_again(epoch, caller, patience).await;
        *renewing = renewed.as_ref().err().map(|unanswered| unanswered.text.clone());
        if let Some(text) = &*renewing {
            self.shared.warn(text);
        }
        let mut state = self.state.lock();
        state.half = false;
        if renewed.is_ok() {
            state.epoch += 1;
            tracing::info!(epoch = state.epoch, "began the session with the upstream");
        }
        renewed
    }

    async fn begin_again(
        &self,
        epoch: u64,
        caller: &Caller,
        patience: &mut Patience,
    ) -> Result<(), Unanswered> {
        let Some(hello) = self.state.lock().memory.initialize() else {
            return Err("the upstream does not know the session".to_owned().into());
        };
        loop {
            match self.try_within(&hello, &HeaderMap::new(), epoch, caller).await {
                Try::Answered(answer) if !answer.is_error() => break,
                Try::Answered(_) => {
                    return Err("the upstream refused to be initialised".to_owned().into());
                }
                Try::Lost(text) | Try::Failed(Unanswered { text, .. }) => return Err(text.into()),
                Try::Unsent(text) | Try::Broken(text) => {
                    if !patience.pause().await {
                        return Err(text.into());
                    }
                }
            }
        }
        let (session, ..) = self.session();
        let rest = self.state.lock().memory.rest();
        for message in rest {
            if message.request_id().is_some() {
                self.try_within(&message, &session, epoch + 1, caller).await;
            } else {
                self.say(&message, &session, caller).await;
            }
        }
        Ok(())
    }

    /// A try that takes no longer than what needs no thought may take: others wait for it.
    async fn try_within(
        &self,
        request: &Message,
        session: &HeaderMap,
        epoch: u64,
        caller: &Caller,
    ) -> Try {
        let patience = self.shared.wire.patience();
        let trying = self.attempt(request, session, epoch, caller);
        let late = |_elapsed| Try::Broken(SendError::Late(patience).to_string());
        timeout(patience, trying).await.unwrap_or_else(late)
    }
}
