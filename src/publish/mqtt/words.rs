//! The protocol's reason codes and the library's errors, in words for the person at the keyboard.

use std::io;

use rumqttc::v5::{
    ConnectionError, StateError,
    mqttbytes::{
        Error as CodecError,
        v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason},
    },
};
use rustls::{AlertDescription, CertificateError};

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The broker has the message.
    Taken,
    /// It will never take it; why, in words.
    Refused(&'static str),
    /// It does not take it now, but may later; why, in words.
    NotNow(&'static str),
    /// It does not take it, and does not say whether it ever will: overloaded brokers answer so, and
    /// those that object to a message; why, in words.
    Unclear(&'static str),
}

/// How a connection ended, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The broker objects to a message that was under way.
    Rejected {
        /// In words.
        why: String,
        /// A smaller one would do.
        too_large: bool,
    },
    /// The other side hung up and did not say why; perhaps because of a message, or because it does
    /// not know this version of the protocol.
    HungUp(String),
    /// Not let in: it does not know this version of the protocol.
    LacksVersion(String),
    /// Not let in: it keeps no retained messages.
    LacksRetain,
    /// Not let in: it acknowledges no messages.
    LacksQos1,
    /// Somebody published, where we listen, what is too large for us.
    Flooded,
    /// Messages have nothing to do with it.
    Lost(String),
}

impl Ending {
    /// In words.
    pub fn why(self) -> String {
        match self {
            Self::Rejected { why, .. } | Self::HungUp(why) | Self::LacksVersion(why) | Self::Lost(why) => why,
            Self::LacksRetain => "the broker keeps no retained messages".into(),
            Self::LacksQos1 => "the broker acknowledges no messages".into(),
            Self::Flooded => FLOODED.into(),
        }
    }
}

/// What the broker says to a message.
pub(super) fn verdict(reason: PubAckReason) -> Verdict {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Verdict::Taken,
        // A matter of time: keeping the message loses nothing.
        PubAckReason::QuotaExceeded => Verdict::NotNow("a quota is used up"),
        PubAckReason::NotAuthorized => Verdict::Refused("this user may not publish there (not authorized)"),
        PubAckReason::PayloadFormatInvalid => Verdict::Refused("it does not take such a payload"),
        PubAckReason::TopicNameInvalid => Verdict::Refused("it does not take such a topic"),
        PubAckReason::PacketIdentifierInUse => Verdict::Unclear("it mistakes it for another message"),
        PubAckReason::ImplementationSpecificError => Verdict::Unclear("for a reason of its own"),
        PubAckReason::UnspecifiedError => Verdict::Unclear("it does not say why"),
    }
}

/// Why the broker refuses to let us in.
fn refusal(code: ConnectReturnCode) -> Ending {
    use ConnectReturnCode as Code;
    Ending::Lost(match code {
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
            return Ending::LacksVersion("the broker refuses this version of MQTT".into());
        }
        Code::RetainNotSupported => return Ending::LacksRetain,
        Code::QoSNotSupported => return Ending::LacksQos1,
        Code::BadUserNamePassword => {
            "the broker refuses the user name or the password: check mqtt.username and mqtt.password_file"
                .into()
        }
        Code::NotAuthorized => "the broker does not let this user in (not authorized): check mqtt.username \
                                and mqtt.password_file"
            .into(),
        Code::ServerUnavailable | Code::ServiceUnavailable => "the broker says that it is unavailable".into(),
        Code::ServerBusy => "the broker says that it is busy".into(),
        Code::Banned => "the broker has banned this client".into(),
        Code::ConnectionRateExceeded => "the broker says that clients connect too often".into(),
        Code::QuotaExceeded => "the broker says that a quota is used up".into(),
        Code::BadClientId | Code::ClientIdentifierNotValid => {
            "the broker does not take this client id: choose another node.id".into()
        }
        Code::BadAuthenticationMethod => "the broker wants another way to log in".into(),
        Code::UseAnotherServer | Code::ServerMoved => "the broker has moved: change mqtt.url".into(),
        Code::TopicNameInvalid => "the broker does not take our status topic: check mqtt.topic_prefix".into(),
        other => format!("the broker refuses the connection ({other:?})"),
    })
}

/// What an error of MQTT 5's side says about the connection that it ended.
pub(super) fn ending(error: &ConnectionError) -> Ending {
    use DisconnectReasonCode as Code;
    let rejected = |why: &str, too_large| Ending::Rejected { why: why.into(), too_large };
    match error {
        ConnectionError::ConnectionRefused(code) => refusal(*code),
        ConnectionError::Timeout(_) => Ending::Lost(NO_ANSWER.into()),
        ConnectionError::Io(error) => {
            Ending::Lost(format!("{error}: check mqtt.url, and that the broker runs"))
        }
        ConnectionError::Tls(error) => Ending::Lost(tls(error)),
        ConnectionError::NotConnAck(_) => Ending::Lost("what answers there does not speak MQTT".into()),
        ConnectionError::RequestsDone => Ending::Lost("the connection was closed from our side".into()),
        ConnectionError::MqttState(state) => match state {
            // A reason code for a publish that rumqttc 0.25 does not know; it drops the connection then.
            // 0x95 is MQTT 5's "packet too large": mosquitto sends it for its message_size_limit.
            StateError::Deserialization(CodecError::InvalidConnectReturnCode(0x95)) => {
                rejected("it is larger than the broker takes", true)
            }
            StateError::Deserialization(CodecError::InvalidConnectReturnCode(code)) => {
                Ending::Rejected { why: format!("reason code {code:#04x}"), too_large: false }
            }
            StateError::OutgoingPacketTooLarge { .. } => rejected("it is larger than the broker takes", true),
            StateError::ServerDisconnect { reason_code, .. } => match reason_code {
                Code::PacketTooLarge => rejected("it is larger than the broker takes", true),
                Code::PayloadFormatInvalid => rejected("it does not take such a payload", false),
                Code::TopicNameInvalid => rejected("it does not take such a topic", false),
                Code::NotAuthorized => rejected("this user may not publish there (not authorized)", false),
                Code::MalformedPacket | Code::ProtocolError => rejected("it takes it for malformed", false),
                Code::QuotaExceeded => Ending::Lost("the broker says that a quota is used up".into()),
                Code::SessionTakenOver => Ending::Lost(
                    "another client has connected with the same client id: does a second camscribe run with \
                     this node.id?"
                        .into(),
                ),
                Code::ServerShuttingDown => Ending::Lost("the broker is shutting down".into()),
                other => Ending::Lost(format!("the broker ended the connection ({other:?})")),
            },
            StateError::ConnectionAborted => Ending::HungUp(HUNG_UP.into()),
            StateError::AwaitPingResp => Ending::Lost(SILENT.into()),
            StateError::Deserialization(CodecError::PayloadSizeLimitExceeded { .. }) => Ending::Flooded,
            StateError::CollisionTimeout => Ending::Lost(NO_ACKNOWLEDGEMENT.into()),
            StateError::Io(error) | StateError::Deserialization(CodecError::Io(error)) => broken(error),
            other => not_understood(other),
        },
    }
}

/// The same for 3.1.1's side.
pub(super) fn ending_311(error: &rumqttc::ConnectionError) -> Ending {
    use rumqttc::{
        ConnectReturnCode as Code, ConnectionError as Error, StateError as State, mqttbytes::Error as Codec,
    };
    match error {
        Error::ConnectionRefused(code) => refusal(match code {
            Code::RefusedProtocolVersion => ConnectReturnCode::RefusedProtocolVersion,
            Code::BadClientId => ConnectReturnCode::BadClientId,
            Code::ServiceUnavailable => ConnectReturnCode::ServiceUnavailable,
            Code::BadUserNamePassword => ConnectReturnCode::BadUserNamePassword,
            Code::NotAuthorized => ConnectReturnCode::NotAuthorized,
            Code::Success => ConnectReturnCode::UnspecifiedError,
        }),
        Error::NetworkTimeout | Error::FlushTimeout => Ending::Lost(NO_ANSWER.into()),
        Error::Io(error) => Ending::Lost(format!("{error}: check mqtt.url, and that the broker runs")),
        Error::Tls(error) => Ending::Lost(tls(error)),
        Error::NotConnAck(_) => Ending::Lost("what answers there does not speak MQTT".into()),
        Error::RequestsDone => Ending::Lost("the connection was closed from our side".into()),
        Error::MqttState(state) => match state {
            State::ConnectionAborted => Ending::HungUp(HUNG_UP.into()),
            State::AwaitPingResp => Ending::Lost(SILENT.into()),
            State::CollisionTimeout => Ending::Lost(NO_ACKNOWLEDGEMENT.into()),
            State::Deserialization(Codec::PayloadSizeLimitExceeded(_)) => Ending::Flooded,
            State::Io(error) | State::Deserialization(Codec::Io(error)) => broken(error),
            other => not_understood(other),
        },
    }
}

const HUNG_UP: &str = "the broker hung up";
/// What to look at where it does so before it has let us in.
pub(super) const NEVER_LET_IN: &str =
    "if it always does: it must speak MQTT, and TLS if and only if mqtt.url says mqtts";
/// What to look at where it does so afterwards: brokers before MQTT 5 cannot say that this is the reason.
pub(super) const THROWN_OUT: &str =
    "if it does so again and again: does a second camscribe run with this node.id?";
const NO_ANSWER: &str = "no answer in time: check mqtt.url, and that the broker runs";
const FLOODED: &str = "somebody publishes far too much on a topic that we listen to (Home Assistant's status, or \
                       set/…): nothing is listened to for ten minutes, commands neither";
const SILENT: &str = "the broker no longer answers";
const NO_ACKNOWLEDGEMENT: &str = "the broker does not acknowledge messages";

fn not_understood(error: &impl std::fmt::Display) -> Ending {
    Ending::Lost(format!("the broker sent something that is not understood: {error}"))
}

/// A connection that stood and broke. With TLS 1.3 a broker looks at our certificate only then.
fn broken(error: &io::Error) -> Ending {
    match certificate_trouble(error) {
        Some(why) => Ending::Lost(why),
        None => Ending::HungUp(error.to_string()),
    }
}

fn tls(error: &rumqttc::TlsError) -> String {
    match error {
        rumqttc::TlsError::Io(error) => certificate_trouble(error)
            .unwrap_or_else(|| format!("TLS failed: {error}: check mqtt.url and mqtt.ca_file")),
        error => format!("TLS failed: {error}: check mqtt.url"),
    }
}

fn certificate_trouble(error: &io::Error) -> Option<String> {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    Some(match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => {
                format!(
                    "TLS failed: the broker's certificate has expired ({bad}): renew it, or check this machine's clock"
                )
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                format!(
                    "TLS failed: the broker's certificate is not valid yet ({bad}): check this machine's clock"
                )
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                format!("TLS failed: the broker's certificate is for another name ({bad}): check mqtt.url")
            }
            Bad::UnknownIssuer => {
                "TLS failed: nobody whom we trust vouches for the broker's certificate: check \
                                   mqtt.url and mqtt.ca_file"
                    .into()
            }
            other => format!(
                "TLS failed: the broker's certificate cannot be trusted ({other}): check mqtt.ca_file"
            ),
        },
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            "TLS failed: the broker wants to see a client certificate: set mqtt.client_cert_file and \
             mqtt.client_key_file"
                .into()
        }
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied),
        ) => {
            format!(
                "TLS failed: the broker does not accept our certificate ({alert:?}): check mqtt.client_cert_file"
            )
        }
        _ => return None,
    })
}
