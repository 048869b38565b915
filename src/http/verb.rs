//! What a request wants of MCP: its route and method say so, and its body, if it has one.

use bytes::Bytes;
use http::Method;
use http_body::Body;

use super::App;
use super::head::{self, Fields};
use super::refusal::Refusal;
use super::route::{self, MESSAGES_PATH, Route};
use crate::guard::Visit;
use crate::limits::body;
use crate::limits::bytes::Quota;
use crate::mcp::Verb;
use crate::policy::Policy;

impl App {
    /// What the request wants; its body is read for that, if it has one.
    pub(super) async fn verb<'a, B>(
        &self,
        policy: &Policy,
        visit: Visit<'a>,
        route: Route,
        fields: &Fields<'a>,
        body: &mut B,
        quota: &Quota,
    ) -> Result<Verb<'a>, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let head = visit.head;
        let prefix = visit.prefix.as_str();
        let read = async {
            head::check_content(&head.headers).map_err(Refusal::Head)?;
            body::read(body, policy.body(), quota).await.map_err(Refusal::Body)
        };
        match (route, &head.method) {
            (Route::Mcp, &Method::POST) => Ok(Verb::Post(read.await?)),
            (Route::Mcp, &Method::GET) => {
                let messages = format!("{prefix}{}{MESSAGES_PATH}", self.path);
                Ok(Verb::Get { last: fields.last_event, messages })
            }
            (Route::Mcp, &Method::DELETE) => Ok(Verb::Delete),
            (Route::Sse, &Method::GET) => {
                Ok(Verb::OpenSse { messages: format!("{prefix}{MESSAGES_PATH}") })
            }
            (Route::Messages, &Method::POST) => {
                Ok(Verb::PostMessage(head::session_in_query(head), read.await?))
            }
            (Route::Tools, &Method::GET | &Method::HEAD) => Ok(Verb::ListTools),
            (Route::CallTool, &Method::POST) => Ok(Verb::CallTool(read.await?)),
            (Route::OAuthProbe | Route::Unknown, _) => {
                Err(Refusal::NotFound(route::whereabouts(head.uri.path(), &self.path, prefix)))
            }
            (_, _) => Err(Refusal::Method(route)),
        }
    }
}
