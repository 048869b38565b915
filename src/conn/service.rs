//! The requests of one connection, for hyper.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;

use super::activity::{Activity, Reported};
use super::deadlines::ConnTimes;
use super::failures::Failures;
use super::unread::{Received, Then};
use crate::caller::Alpn;
use crate::drain::Drain;
use crate::http::{App, ConnInfo, ReplyBody};
use crate::policy::Policy;

/// One request that is being answered.
pub(super) type Serving =
    Pin<Box<dyn Future<Output = Result<Response<Reported<ReplyBody>>, Infallible>> + Send>>;

/// What connections are served with, whichever protocol they speak.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) app: Arc<App>,
    pub(super) job: Job,
    pub(super) failures: Failures,
    pub(super) drain: Drain,
}

/// What a connection is held to, from its accept on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnLimits {
    pub(super) times: ConnTimes,
    pub(super) max_header_bytes: usize,
    pub(super) max_headers: usize,
}

impl From<&Policy> for ConnLimits {
    fn from(policy: &Policy) -> Self {
        let (limits, times) = (&policy.limits, &policy.times);
        Self {
            times: ConnTimes { header: times.header, idle: times.idle, write: times.write },
            max_header_bytes: limits.max_header_bytes,
            max_headers: limits.max_headers,
        }
    }
}

/// What is done with the requests of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    Serve,
    /// They are redirected to this port over TLS.
    Redirect(u16),
}

impl Service {
    /// Answers each request of one connection.
    pub(super) fn requests(
        &self,
        conn: ConnInfo,
        activity: Arc<Activity>,
    ) -> impl Fn(Request<Incoming>) -> Serving + Unpin + use<'_> {
        let conn = Arc::new(conn);
        let job = self.job;
        move |request| {
            let app = Arc::clone(&self.app);
            let conn = Arc::clone(&conn);
            let mut exchange = activity.begin();
            let request = request.map(|body| {
                Received::new(body, || match activity.deadlines.protocol {
                    Alpn::Http1 => Then::Linger(Arc::clone(&activity), exchange.number),
                    Alpn::H2 => Then::Take(self.drain.clone(), exchange.over()),
                })
            });
            Box::pin(async move {
                let mut response = match job {
                    Job::Serve => app.handle(&conn, request).await,
                    Job::Redirect(port) => app.redirect(&conn, request, port),
                };
                if exchange.is_violated() {
                    // hyper knows only later that there is nothing more to be read.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                exchange.answered(response.status());
                Ok(response.map(|body| Reported::new(body, exchange)))
            })
        }
    }
}
