//! What may change while the server runs, as one value that is replaced whole.
//!
//! A request takes the policy of the moment when its head has come, a connection when it is accepted,
//! a session when it starts. Each keeps it to its end, and none sees half of a change. Nothing is
//! counted here: whoever counts keeps the count over every change, and is given the limit.

use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{Config, Limits, Times};
use crate::guard::Admission;
use crate::limits::body::BodyLimits;
use crate::wire::forwarded::TrustedProxies;

/// What requests, connections and sessions are held to.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Which requests are admitted.
    pub(crate) admission: Admission,
    /// Proxies in front of the edge that are believed.
    pub(crate) proxies: TrustedProxies,
    /// Every count, size and rate.
    pub(crate) limits: Limits,
    /// Every length of time.
    pub(crate) times: Times,
}

impl Policy {
    /// The policy of this configuration. `names` are those of the certificates.
    pub(crate) fn new(config: &Config, names: &[String]) -> Self {
        Self {
            admission: Admission::new(config, names),
            proxies: TrustedProxies::new(&config.trusted_proxies),
            limits: config.limits.clone(),
            times: config.times.clone(),
        }
    }

    /// What a request body may cost.
    pub(crate) fn body(&self) -> BodyLimits {
        BodyLimits {
            bytes: self.limits.max_body_bytes,
            idle: self.times.body_idle,
            total: self.times.body,
        }
    }
}

/// The policy that holds now. Clones share it.
///
/// The lock is held for as long as it takes to clone the `Arc`, and never across an await.
#[derive(Clone, Debug)]
pub(crate) struct CurrentPolicy(Arc<RwLock<Arc<Policy>>>);

impl CurrentPolicy {
    /// This policy holds until it is replaced.
    pub(crate) fn new(policy: Policy) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(policy))))
    }

    /// The policy of this moment.
    pub(crate) fn now(&self) -> Arc<Policy> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it for whoever asks from now on.
    pub(crate) fn replace(&self, policy: Policy) {
        let fresh = Arc::new(policy);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}
