//! A mosquitto that speaks TLS, with a certificate authority of its own.

use std::{fs, process::Command};

use super::broker::Mosquitto;

/// Makes a certificate authority and what it signs: a certificate for 127.0.0.1, one for a client, and some
/// invalid ones for the broker.
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

/// Starts a broker with a valid certificate.
pub fn tls_broker() -> Mosquitto {
    broker_with("server.pem")
}

/// Starts a broker that presents this certificate and requires one of the client.
pub fn broker_with(certificate: &str) -> Mosquitto {
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
