//! The sessions that clients know by an id, and how many there may be.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use dashmap::DashMap;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Reason;
use super::session::Session;
use crate::addr::ClientKey;
use crate::caller::{Principal, Transport};
use crate::limit::{PerClient, Permit};

/// Names a session: 256 bits from the operating system, as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(Box<str>);

impl SessionId {
    /// A new one. Fails only where the operating system has no randomness to give.
    pub(super) fn random() -> Result<Self, Reason> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|_no_randomness| Reason::NoRandomness)?;
        Ok(Self(hex(&bytes).into()))
    }

    /// What the client sends.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// A name for logs, from which the id cannot be had.
    pub(super) fn alias(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        hex(digest.first_chunk::<4>().map_or(&[], |first| first))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.alias())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The sessions that clients know by an id.
#[derive(Debug)]
pub(crate) struct SessionTable {
    sessions: Arc<DashMap<Box<str>, Arc<Session>>>,
    places: Arc<Semaphore>,
    per_client: PerClient,
}

/// What one session holds of the limits. Dropping it gives that back and forgets the session.
#[derive(Debug)]
pub(super) struct SessionPlace {
    id: SessionId,
    sessions: Arc<DashMap<Box<str>, Arc<Session>>>,
    _place: OwnedSemaphorePermit,
    _permit: Permit,
}

impl SessionPlace {
    pub(super) fn id(&self) -> &SessionId {
        &self.id
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        drop(self.sessions.remove(&*self.id.0));
    }
}

impl SessionTable {
    pub(super) fn new(most: u32, per_client: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            sessions: Arc::default(),
            places: Arc::new(Semaphore::new(most)),
            per_client: PerClient::new(per_client),
        }
    }

    /// Takes a place for a session of this client.
    pub(super) fn take(&self, client: ClientKey) -> Result<SessionPlace, Reason> {
        let permit = self.per_client.try_take(client).ok_or(Reason::ClientSessionsFull)?;
        let place = Arc::clone(&self.places);
        let place = place.try_acquire_owned().map_err(|_full| Reason::SessionsFull)?;
        let sessions = Arc::clone(&self.sessions);
        Ok(SessionPlace { id: SessionId::random()?, sessions, _place: place, _permit: permit })
    }

    /// Makes a session known.
    pub(super) fn enter(&self, session: &Arc<Session>) {
        drop(self.sessions.insert(session.id().as_str().into(), Arc::clone(session)));
    }

    /// The open session with this id, if it is of this transport and belongs to this principal.
    /// Somebody else's session is as unknown as none.
    pub(super) fn find(
        &self,
        id: &str,
        principal: &Principal,
        transport: Transport,
    ) -> Result<Arc<Session>, Reason> {
        let session = self.sessions.get(id).map(|session| Arc::clone(&session));
        session
            .filter(|session| session.is_open_to(principal) && session.transport() == transport)
            .inspect(|session| session.touch())
            .ok_or(Reason::UnknownSession)
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(last: u8) -> ClientKey {
        ClientKey::from(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn ids_are_long_visible_and_new() {
        let (one, other) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        assert_eq!(one.as_str().len(), 64);
        assert!(one.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        assert_ne!(one, other);
        assert!(!format!("{one:?}").contains(one.as_str()));
    }

    #[test]
    fn places_are_limited_in_all_and_per_client() {
        let table = SessionTable::new(3, 2);
        let (_a, b) = (table.take(client(1)).unwrap(), table.take(client(1)).unwrap());
        assert_eq!(table.take(client(1)).unwrap_err(), Reason::ClientSessionsFull);
        let _c = table.take(client(2)).unwrap();
        assert_eq!(table.take(client(2)).unwrap_err(), Reason::SessionsFull);
        drop(b);
        assert!(table.take(client(2)).is_ok());
    }
}
