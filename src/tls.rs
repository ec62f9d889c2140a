//! The certificates that TLS clients of this program use: files in PEM form, and the authorities of the system.

use std::path::{Path, PathBuf};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem, pem::PemObject},
};

/// Certificates or keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// A file that cannot be read, or that has no PEM of the right kind.
    #[error("{what}: {} cannot be used: {why}", file.display())]
    File {
        /// The configuration key that names the file.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The reason, for people.
        why: String,
    },
    /// The system has no certificate authorities.
    #[error("the system has no certificate authorities ({why}): install ca-certificates, or set {what}")]
    NoSystemRoots {
        /// The configuration key that can name others.
        what: &'static str,
        /// The reason, for people.
        why: String,
    },
}

/// The authorities to trust: those in `ca_file`, which the configuration key `what` names, else the system's.
///
/// # Errors
/// When the file cannot be used, or when the system has no certificate authorities.
pub fn roots(ca_file: Option<&Path>, what: &'static str) -> Result<RootCertStore, TlsFileError> {
    match ca_file {
        Some(file) => private_roots(file, what),
        None => system_roots(what),
    }
}

fn private_roots(file: &Path, what: &'static str) -> Result<RootCertStore, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, what)? {
        let unusable =
            |error: rustls::Error| TlsFileError::File { what, file: file.into(), why: error.to_string() };
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

fn system_roots(what: &'static str) -> Result<RootCertStore, TlsFileError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Distributions ship old certificates that no verifier accepts. The others are enough.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "none found".into(), ToString::to_string);
        return Err(TlsFileError::NoSystemRoots { what, why });
    }
    Ok(roots)
}

/// The certificates in `file`, which the configuration key `what` names.
///
/// # Errors
/// When the file cannot be used.
pub fn certificates(file: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, pem::Error>>();
    let certificates = read().map_err(|error| unreadable(what, file, &error))?;
    if certificates.is_empty() {
        return Err(unreadable(what, file, &pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

/// The error for a PEM file that cannot be read.
pub fn unreadable(what: &'static str, file: &Path, error: &pem::Error) -> TlsFileError {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds none in PEM form".into(),
        other => format!("{other:?}"),
    };
    TlsFileError::File { what, file: file.into(), why }
}
