//! What GStreamer's RTSP client cannot do, and cameras want: logins by SHA-256, requests that keep a session alive,
//! certificates of their own.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, sync::Arc};

use camscribe::config::{Login, Secret, TlsVerify};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    hostile_camera::{Faults, HostileCamera, KeepAliveAnswer, LOGIN},
    playback::{Played, camera, play},
};

fn login(password: &str) -> Option<Login> {
    Some(Login { username: LOGIN.0.into(), password: Secret::new(password) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_sha_256_alone_works() {
    let server = HostileCamera::start(Faults { sha256: true, ..Faults::default() });
    let mut config = camera(&server.uri());
    config.login = login(LOGIN.1);
    let played = play(config.clone(), 1).await;
    assert_eq!(played.clips.len(), 1, "{:?}", played.result);
    config.login = login("wrong");
    let words = error(&play(config, 1).await);
    assert!(words.ends_with("the camera refuses user name or password"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_hangs_up_instead_of_answering_is_told() {
    for (sha256, method, advice) in
        [(false, "DESCRIBE", "; perhaps it has"), (true, "OPTIONS", " with a login; check user name")]
    {
        let server = HostileCamera::start(Faults { hang_up_on: Some(method), sha256, ..Faults::default() });
        let mut config = camera(&server.uri());
        config.login = login("wrong");
        let error = error(&play(config, 1).await);
        let words = format!("the camera closed the connection instead of answering {method}{advice}");
        assert!(error.contains(&words), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_names_no_channels_is_watched() {
    let server = HostileCamera::start(Faults { no_channels: true, ..Faults::default() });
    let played = play(camera(&server.uri()), 1).await;
    assert_eq!(played.clips.len(), 1, "{:?}", played.result);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_alive_whatever_the_camera_answers() {
    use KeepAliveAnswer as Answer;
    // The session of two seconds is over three times before the last clip, if nothing is sent.
    let watch = async |keep_alive| {
        let server = HostileCamera::start(Faults { timeout: Some(2), keep_alive, ..Faults::default() });
        let played = play(camera(&server.uri()), 4).await;
        assert_eq!(played.clips.len(), 4, "{keep_alive:?}: {:?}", played.result);
        server.plays()
    };
    let plays = tokio::join!(watch(Answer::Ok), watch(Answer::Unknown), watch(Answer::Silence),);
    assert_eq!(plays, (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_hangs_up_on_requests_is_asked_less_each_time() {
    // Without a timeout of its own, the camera is asked after 30 s: this one states a short one and does not mean it.
    let server = HostileCamera::start(Faults {
        session: Some(4),
        keep_alive: KeepAliveAnswer::Close,
        ..Faults::default()
    });
    let mut config = camera(&server.uri());
    config.window.window = std::time::Duration::from_secs(1);
    config.window.stride = config.window.window;
    // `retry` is off: the lesson is reason enough.
    let played = play(config, 8).await;
    assert_eq!(played.clips.len(), 8, "{:?}", played.result);
    assert_eq!(server.plays(), 3, "GET_PARAMETER, OPTIONS, nothing");
}

/// The error that a run has ended with, in one line.
fn error(played: &Played) -> String {
    played.result.as_ref().expect_err("no clip can come").in_one_line()
}

/// Makes certificates `NAME.pem` and keys `NAME.key`: `own` signs itself; an `authority` signs `right` for 127.0.0.1 and
/// `other` for another name.
fn certificates(folder: &Path) {
    let script = r#"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout own.key -out own.pem -subj "/CN=camera"
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout authority.key -out authority.pem -subj "/CN=authority"
        sign() {
            openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj "/CN=$1"
            printf "subjectAltName=$2\nbasicConstraints=CA:FALSE\n" > $1.ext
            openssl x509 -req -in $1.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 \
                -extfile $1.ext -out $1.pem
        }
        sign right IP:127.0.0.1
        sign other DNS:elsewhere.example
    "#;
    let made = Command::new("sh").args(["-c", script]).current_dir(folder).output().expect("sh runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Puts TLS before a camera. Returns the address.
async fn encrypt(server: &HostileCamera, folder: &Path, name: &str) -> String {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = server.port();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut camera = TcpStream::connect((Ipv4Addr::LOCALHOST, behind)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut camera).await;
            });
        }
    });
    format!("rtsps://127.0.0.1:{port}/live")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_as_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name);
    let server = HostileCamera::start(Faults::default());
    let mut config = camera(&encrypt(&server, folder.path(), "own").await);

    let words = error(&play(config.clone(), 1).await);
    assert!(words.contains("the camera's certificate is signed by itself"), "{words}");
    let fingerprint =
        words.split("tls_fingerprint = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(words.contains("set tls_verify = \"fingerprint\""), "{words}");
    config.tls = TlsVerify::Fingerprint(fingerprint.parse().unwrap());
    assert_eq!(play(config.clone(), 1).await.clips.len(), 1);
    config.tls = TlsVerify::Fingerprint(format!("00{}", &fingerprint[2..]).parse().unwrap());
    let words = error(&play(config.clone(), 1).await);
    assert!(
        words.contains(&format!("the fingerprint {fingerprint}, which is not tls_fingerprint")),
        "{words}"
    );
    config.tls = TlsVerify::Off;
    assert_eq!(play(config.clone(), 1).await.clips.len(), 1);
    config.tls = TlsVerify::Full(Some(file("own.pem")));
    assert_eq!(play(config.clone(), 1).await.clips.len(), 1);
    fs::write(file("none.pem"), "").unwrap();
    config.tls = TlsVerify::Full(Some(file("none.pem")));
    let words = error(&play(config, 1).await);
    assert!(words.contains("tls_ca_file") && words.contains("it holds none in PEM form"), "{words}");

    let mut config = camera(&encrypt(&server, folder.path(), "right").await);
    let words = error(&play(config.clone(), 1).await);
    assert!(words.contains("is not signed by an authority that this machine trusts"), "{words}");
    config.tls = TlsVerify::Full(Some(file("authority.pem")));
    let played = play(config, 1).await;
    assert_eq!(played.clips.len(), 1, "{:?}", played.result);

    let mut config = camera(&encrypt(&server, folder.path(), "other").await);
    config.tls = TlsVerify::Full(Some(file("authority.pem")));
    let words = error(&play(config, 1).await);
    assert!(words.contains("is for another name") && words.contains("elsewhere.example"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_kind_of_server_is_told() {
    let server = HostileCamera::start(Faults::default());
    let plain = server.uri();
    let words = error(&play(camera(&plain.replace("rtsp://", "rtsps://")), 1).await);
    assert!(words.contains("TLS"), "{words}");
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let encrypted = encrypt(&server, folder.path(), "right").await;
    let words = error(&play(camera(&encrypted.replace("rtsps://", "rtsp://")), 1).await);
    assert!(words.contains("what answers there wants TLS: write rtsps:// in the uri"), "{words}");
}
