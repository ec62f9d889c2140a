//! TLS to the broker: which certificates are trusted, and the errors of those that are not.

use std::{fs, path::PathBuf};

use camscribe::publish::{Publisher, Settings, SettingsError, TlsFiles};

use crate::support::{
    broker::{Mosquitto, TIMEOUT},
    publishing::{event, message, offline_reason, online, outbox, settings, start},
    tls::{broker_with, tls_broker},
};

fn tls_settings(broker: &Mosquitto, files: TlsFiles) -> Settings {
    let mut settings = settings(broker.port());
    settings.broker.tls = Some(files);
    settings
}

/// Returns the client certificate and key that the authority of `broker` signed.
fn client(broker: &Mosquitto) -> Option<(PathBuf, PathBuf)> {
    Some((broker.path("client.pem"), broker.path("client.key")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_private_authority_is_reached_over_tls_with_a_client_certificate() {
    let broker = tls_broker();
    let files = TlsFiles { ca: Some(broker.path("ca.pem")), client: client(&broker) };
    let outbox = outbox();
    let publisher = start(tls_settings(&broker, files), &outbox);
    online(&publisher).await;
    outbox.append(message(&event("porch", 0, "A cat.")));
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_invalid_broker_certificate_has_a_clear_error() {
    for (certificate, words) in [
        ("old.pem", ["has expired", "clock"]),
        ("early.pem", ["not valid yet", "clock"]),
        ("other.pem", ["for another name", "mqtt.url"]),
    ] {
        let broker = broker_with(certificate);
        let files = TlsFiles { ca: Some(broker.path("ca.pem")), client: client(&broker) };
        let publisher = start(tls_settings(&broker, files), &outbox());
        let why = offline_reason(&publisher).await;
        assert!(words.iter().all(|word| why.contains(word)), "{certificate}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_refused_client_certificate_has_a_clear_error() {
    let (broker, stranger) = (tls_broker(), tls_broker());
    for (client, words) in [
        (None, ["wants to see a client certificate", "mqtt.client_cert_file"]),
        (client(&stranger), ["does not accept our certificate", "mqtt.client_cert_file"]),
    ] {
        let files = TlsFiles { ca: Some(broker.path("ca.pem")), client };
        let publisher = start(tls_settings(&broker, files), &outbox());
        let why = offline_reason(&publisher).await;
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_an_unknown_authority_is_not_trusted_and_has_a_clear_error() {
    let broker = tls_broker();
    // Another authority than the one that signed the broker's certificate.
    let stranger = tls_broker();
    let files = TlsFiles { ca: Some(stranger.path("ca.pem")), client: None };
    let publisher = start(tls_settings(&broker, files), &outbox());
    let why = offline_reason(&publisher).await;
    assert!(why.contains("TLS") && why.contains("mqtt.ca_file"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_empty_certificate_file_is_named_at_the_start() {
    let broker = Mosquitto::stopped("");
    fs::write(broker.path("empty.pem"), "nothing").expect("written");
    for name in ["missing.pem", "empty.pem"] {
        let files = TlsFiles { ca: Some(broker.path(name)), client: None };
        let refused = Publisher::start(tls_settings(&broker, files), outbox());
        let Err(error @ SettingsError::Tls(_)) = refused else { panic!("{name} was taken") };
        assert!(error.to_string().contains(name), "{error}");
    }
}
