//! TLS: who is trusted, who is not, and what is said about it.

use std::{fs, path::PathBuf, process::Command};

use camscribe::publish::{Publisher, Settings, SettingsError, TlsFiles};

#[path = "support/broker.rs"]
mod broker;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/publishing.rs"]
mod publishing;

use broker::{Mosquitto, PATIENCE};
use daemon::Daemon;
use publishing::{event, message, online, outbox, settings, start, trouble};

/// A private authority, and what it signs: a certificate for 127.0.0.1 and one for a client; some
/// for the broker that are no good.
fn certificates(broker: &Mosquitto) {
    let script = r#"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj "/CN=test authority"
        for who in server client; do
            openssl req -newkey rsa:2048 -nodes -keyout $who.key -out $who.csr -subj "/CN=$who"
            printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > $who.ext
            openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $who.ext \
                -out $who.pem
        done
        faketime '9 days ago' openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile server.ext -out old.pem
        faketime '9 days' openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile server.ext -out early.pem
        printf 'subjectAltName=DNS:elsewhere.example\nbasicConstraints=CA:FALSE\n' > other.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile other.ext \
            -out other.pem
    "#;
    let made =
        Command::new("sh").args(["-c", script]).current_dir(broker.path("")).output().expect("sh runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn tls_broker() -> Mosquitto {
    showing("server.pem")
}

/// A broker that shows this certificate and wants to see one.
fn showing(certificate: &str) -> Mosquitto {
    let mut broker = Mosquitto::stopped("allow_anonymous true\nrequire_certificate true");
    certificates(&broker);
    let config = fs::read_to_string(broker.path("mosquitto.conf")).expect("written");
    let path = |name: &str| broker.path(name).display().to_string();
    let (ca, cert, key) = (path("ca.pem"), path(certificate), path("server.key"));
    let config = format!("{config}cafile {ca}\ncertfile {cert}\nkeyfile {key}\n");
    fs::write(broker.path("mosquitto.conf"), config).expect("written");
    broker.run();
    broker
}

fn tls_settings(broker: &Mosquitto, files: TlsFiles) -> Settings {
    let mut settings = settings(broker.port());
    settings.broker.tls = Some(files);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_private_authority_is_reached_over_tls_with_a_client_certificate() {
    let broker = tls_broker();
    let files = TlsFiles { ca: Some(broker.path("ca.pem")), client: client(&broker) };
    let outbox = outbox();
    let publisher = start(tls_settings(&broker, files), &outbox);
    online(&publisher).await;
    outbox.append(message(&event("porch", 0, "A cat.")));
    assert_eq!(publisher.shutdown(PATIENCE).await, 0);
}

/// The client's certificate that the authority of `broker` signed.
fn client(broker: &Mosquitto) -> Option<(PathBuf, PathBuf)> {
    Some((broker.path("client.pem"), broker.path("client.key")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_certificate_that_is_no_good_is_told_in_words() {
    for (certificate, words) in [
        ("old.pem", ["has expired", "clock"]),
        ("early.pem", ["not valid yet", "clock"]),
        ("other.pem", ["for another name", "mqtt.url"]),
    ] {
        let broker = showing(certificate);
        let files = TlsFiles { ca: Some(broker.path("ca.pem")), client: client(&broker) };
        let publisher = start(tls_settings(&broker, files), &outbox());
        let why = trouble(&publisher).await;
        assert!(words.iter().all(|word| why.contains(word)), "{certificate}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_certificate_missing_or_refused_is_told_in_words() {
    let (broker, stranger) = (tls_broker(), tls_broker());
    for (client, words) in [
        (None, ["wants to see a client certificate", "mqtt.client_cert_file"]),
        (client(&stranger), ["does not accept our certificate", "mqtt.client_cert_file"]),
    ] {
        let files = TlsFiles { ca: Some(broker.path("ca.pem")), client };
        let publisher = start(tls_settings(&broker, files), &outbox());
        let why = trouble(&publisher).await;
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_authority_is_unknown_is_not_trusted_and_that_is_told_in_words() {
    let broker = tls_broker();
    // Another authority than the one that signed the broker's certificate.
    let stranger = tls_broker();
    let files = TlsFiles { ca: Some(stranger.path("ca.pem")), client: None };
    let publisher = start(tls_settings(&broker, files), &outbox());
    let why = trouble(&publisher).await;
    assert!(why.contains("TLS") && why.contains("mqtt.ca_file"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_file_that_is_missing_or_holds_no_certificate_is_named_at_the_start() {
    let broker = Mosquitto::stopped("");
    fs::write(broker.path("empty.pem"), "nothing").expect("written");
    for name in ["missing.pem", "empty.pem"] {
        let files = TlsFiles { ca: Some(broker.path(name)), client: None };
        let refused = Publisher::start(tls_settings(&broker, files), outbox());
        let Err(error @ SettingsError::Tls(_)) = refused else { panic!("{name} was taken") };
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_reload_reads_certificates_again_and_a_command_leaves_the_connection_alone() {
    let broker = tls_broker();
    let path = |name: &str| broker.path(name).display().to_string();
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        [mqtt]
        url = "mqtts://127.0.0.1:{}"
        ca_file = "{}"
        client_cert_file = "{}"
        client_key_file = "{}"
        [cameras.porch]
        uri = "test://shapes"
        "#,
        broker.port(),
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    let daemon = Daemon::start(&toml);
    let connections = || daemon.log().matches("connected to the MQTT broker at").count();
    daemon.logged("connected to the MQTT broker at");
    let sent = Command::new("mosquitto_pub")
        .args(["-q", "1", "-h", "127.0.0.1", "-p", &broker.port().to_string()])
        .args(["--cafile", &path("ca.pem"), "--cert", &path("client.pem"), "--key", &path("client.key")])
        .args(["-t", "camscribe/edge1/porch/set/prompt", "-m", "Who comes?"])
        .status();
    assert!(sent.unwrap().success());
    daemon.logged("the configuration is in force: asked something else: porch");
    assert_eq!(connections(), 1);
    daemon.reload(&toml);
    daemon.logged("the configuration is in force: connecting to the broker anew");
    daemon::wait("another connection", || (connections() == 2).then_some(()));
    assert_eq!(daemon.stop().0, Some(0));
}
