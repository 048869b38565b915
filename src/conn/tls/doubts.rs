//! Certificates that can be served, and that clients will refuse: the operator is told at the start,
//! with the file or the name that is missing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::certificate::CertificateFacts;
use super::pem;

/// Entries of a directory that are looked at.
const MOST_FILES: usize = 1000;

/// What is doubtful in a chain that was read from `file`, leaf first.
pub(super) fn doubts(
    file: &Path,
    chain: &[CertificateFacts],
    leaf: &CertificateDer<'_>,
) -> Vec<String> {
    let Some((first, others)) = chain.split_first() else { return Vec::new() };
    let shown = file.display();
    let mut doubts = Vec::new();
    if first.names.is_empty() {
        doubts.push(format!("the certificate in `{shown}` {}", no_host(first)));
    }
    if lacks_issuer(first, others) && !is_trusted(&first.issued_by) {
        let issuer = &first.issued_by_text;
        let step = match whole_chain(file, first, leaf) {
            Some(whole) => format!("`{}` has both: give it as --cert (MCP_CERT)", whole.display()),
            None => {
                "Give the file with the whole chain as --cert (MCP_CERT), which ACME clients call \
                     fullchain.pem; nothing is missing only where clients were given that issuer \
                     itself"
                    .to_owned()
            }
        };
        doubts.push(format!(
            "the certificate in `{shown}` comes without that of its issuer, {issuer:?}, which is no CA \
             that this system trusts: most clients will refuse it. {step}"
        ));
    }
    doubts
}

fn no_host(leaf: &CertificateFacts) -> String {
    let Some(name) = &leaf.common_name else {
        return "names no host, so that no client will accept it. Have it issued again with the host's \
                names as subject alternative names"
            .to_owned();
    };
    let kind = if name.parse::<IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!(
        "names no host: its common name {name:?} is not looked at by clients any more. Have it issued \
         again with the subject alternative name {kind}:{name}"
    )
}

fn lacks_issuer(leaf: &CertificateFacts, others: &[CertificateFacts]) -> bool {
    leaf.subject != leaf.issued_by && !others.iter().any(|other| other.subject == leaf.issued_by)
}

/// Is this the name of a CA in the system's store? Clients have that one themselves.
fn is_trusted(issuer: &[u8]) -> bool {
    let roots = rustls_native_certs::load_native_certs().certs;
    let nowhere = Path::new("");
    roots
        .iter()
        .any(|root| CertificateFacts::read(root, nowhere).is_ok_and(|it| it.subject == issuer))
}

/// The file beside this one that has the same leaf and its issuer.
fn whole_chain(file: &Path, leaf: &CertificateFacts, der: &CertificateDer<'_>) -> Option<PathBuf> {
    // A name without a directory is one of this directory.
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = dir.read_dir().ok()?.take(MOST_FILES).flatten().map(|entry| entry.file_name());
    let is_candidate = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        ["fullchain", "bundle"].iter().any(|word| name.contains(word))
    };
    let mut names: Vec<_> = entries.filter(is_candidate).collect();
    names.sort();
    names.into_iter().map(|name| dir.join(name)).find(|path| {
        // Whatever else lies there may be a pipe that never ends.
        let chain = path.is_file().then(|| pem::certificates(path).ok()).flatten();
        chain.is_some_and(|chain| match chain.split_first() {
            Some((first, others)) if first == der => {
                let others: Vec<_> =
                    others.iter().filter_map(|it| CertificateFacts::read(it, path).ok()).collect();
                !lacks_issuer(leaf, &others)
            }
            _ => false,
        })
    })
}
