//! TLS to a camera, and words about certificates. Cameras sign their own, or are asked for by an address that their
//! certificate does not name, more often than not.

use std::sync::Arc;

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::error::CaptureError;
use crate::{
    config::{Fingerprint, NetworkAddress, TlsVerify},
    tls,
};

/// Speaks TLS with the camera at `address`. `what`: which source, for errors.
///
/// # Errors
/// If the camera does not, or if it does not show what `verify` wants to see.
pub(super) async fn connect(
    what: &str,
    address: &NetworkAddress,
    verify: &TlsVerify,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, CaptureError> {
    let failed = |why: String| CaptureError::Tls { what: what.into(), why };
    let (host, _) = address.host_port();
    let name = ServerName::try_from(host.clone())
        .map_err(|_| failed(format!("{host:?} cannot be the name in a certificate")))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { how: How::new(verify, &provider).map_err(failed)?, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        failed(match cause {
            Some(cause) => words(cause),
            None => format!("the TLS handshake fails ({error}): check the port, or write rtsp:// in the uri"),
        })
    })
}

/// How a certificate is verified.
#[derive(Debug)]
enum How {
    /// By these; certificates of `tls_ca_file` that a camera shows as its own are trusted as they are.
    Authorities {
        verifier: Arc<WebPkiServerVerifier>,
        own: Vec<CertificateDer<'static>>,
    },
    Fingerprint(Fingerprint),
    Not,
}

impl How {
    fn new(verify: &TlsVerify, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        Ok(match verify {
            TlsVerify::Off => Self::Not,
            TlsVerify::Fingerprint(fingerprint) => Self::Fingerprint(*fingerprint),
            TlsVerify::Full(ca_file) => {
                let roots =
                    tls::roots(ca_file.as_deref(), "tls_ca_file").map_err(|error| error.to_string())?;
                let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
                let verifier = builder.build().map_err(|error| error.to_string())?;
                let own = match ca_file {
                    Some(file) => {
                        tls::certificates(file, "tls_ca_file").map_err(|error| error.to_string())?
                    }
                    None => Vec::new(),
                };
                Self::Authorities { verifier, own }
            }
        })
    }
}

/// Verifies a camera's certificate. An error says what its fingerprint is.
#[derive(Debug)]
struct Verifier {
    how: How,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint(Sha256::digest(certificate).into());
        let general = |why: String| rustls::Error::General(why);
        match &self.how {
            How::Not => Ok(ServerCertVerified::assertion()),
            How::Fingerprint(wanted) if *wanted == shown => Ok(ServerCertVerified::assertion()),
            How::Fingerprint(_) => Err(general(format!(
                "the camera shows a certificate with the fingerprint {shown}, which is not tls_fingerprint: is \
                 this the camera? If its certificate has been renewed, change tls_fingerprint"
            ))),
            How::Authorities { own, .. } if own.iter().any(|own| own == certificate) => {
                Ok(ServerCertVerified::assertion())
            }
            How::Authorities { verifier, .. } => verifier
                .verify_server_cert(certificate, intermediates, name, ocsp_response, now)
                .map_err(|error| general(distrust(&error, shown))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.how {
            How::Not => Ok(HandshakeSignatureValid::assertion()),
            _ => {
                let algorithms = &self.provider.signature_verification_algorithms;
                verify_tls12_signature(message, certificate, signature, algorithms)
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.how {
            How::Not => Ok(HandshakeSignatureValid::assertion()),
            _ => {
                let algorithms = &self.provider.signature_verification_algorithms;
                verify_tls13_signature(message, certificate, signature, algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with a certificate, and how to trust it all the same.
fn distrust(error: &rustls::Error, shown: Fingerprint) -> String {
    use CertificateError as Bad;
    let wrong = match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => format!("has expired ({bad})"),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                format!("is not valid yet ({bad}): is this machine's clock right?")
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                format!("is for another name ({bad})")
            }
            Bad::UnknownIssuer => "is not signed by an authority that this machine trusts".into(),
            // Of certificates that sign themselves.
            Bad::Other(_) if bad.to_string().contains("CaUsedAsEndEntity") => "is signed by itself".into(),
            other => format!("cannot be trusted ({other})"),
        },
        other => format!("cannot be trusted ({other})"),
    };
    format!(
        "the camera's certificate {wrong}. If you know that it is the camera's own, set tls_verify = \
         \"fingerprint\" and tls_fingerprint = \"{shown}\"; if an authority of yours has signed it, set tls_ca_file"
    )
}

/// Why a handshake failed.
fn words(error: &rustls::Error) -> String {
    use AlertDescription as Alert;
    match error {
        rustls::Error::General(why) => why.clone(),
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: check the port, or write rtsp:// in the uri".into()
        }
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity,
        ) => format!(
            "the camera offers no TLS that is still safe, 1.3 or 1.2 with ECDHE ({error}): update its firmware, \
             or write rtsp:// in the uri"
        ),
        other => format!("the TLS handshake fails: {other}"),
    }
}
