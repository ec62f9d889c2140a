//! The daemon and a broker that speaks TLS.

use std::process::Command;

use crate::support::{
    daemon::{self, Daemon},
    tls::tls_broker,
};

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
    daemon.logged("command: ");
    assert_eq!(connections(), 1);
    daemon.reload(&toml);
    daemon.logged("the configuration is active: reconnecting to the broker");
    daemon::wait("another connection", || (connections() == 2).then_some(()));
    let (code, log) = daemon.stop();
    // None was made for the command.
    assert_eq!((code, log.matches("connected to the MQTT broker at").count()), (Some(0), 2), "{log}");
}
