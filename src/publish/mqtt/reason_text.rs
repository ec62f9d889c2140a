//! What the protocol's reason codes and the library's errors mean, with texts for people.

use std::io;

use rumqttc::v5::{
    ConnectionError, StateError,
    mqttbytes::{
        Error as CodecError,
        v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason},
    },
};
use rustls::{AlertDescription, CertificateError};

/// What a PUBACK says about a message. The texts are the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PubAckOutcome {
    /// The broker has the message.
    Accepted,
    /// The broker refuses the message for good.
    Refused(&'static str),
    /// The broker does not take the message now, but may later.
    TryLater(&'static str),
    /// The broker does not take the message and does not say whether it ever will. Overloaded brokers
    /// answer so, and brokers that object to the message.
    Unclear(&'static str),
}

/// Why a connection ended or was not made. The texts are for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DisconnectReason {
    /// The broker objects to a message that was in flight.
    MessageRejected {
        /// The objection.
        why: String,
        /// A smaller message would be accepted.
        too_large: bool,
    },
    /// The broker closed the connection without a reason: because of a message, or because it does not
    /// support this version of MQTT, or for another cause.
    Closed(String),
    /// The broker does not support this version of MQTT.
    VersionUnsupported(String),
    /// No CONNACK came in time. Some brokers are silent when they see a version of MQTT that they do not know.
    NoAnswer,
    /// The broker does not support retained messages.
    RetainUnsupported,
    /// The broker does not support QoS 1.
    Qos1Unsupported,
    /// Somebody published a message that is too large on a topic that camscribe subscribes to.
    IncomingTooLarge,
    /// Another client took the session over.
    TakenOver,
    /// Another reason, which no message caused.
    Other(String),
}

impl DisconnectReason {
    /// The reason as text.
    pub fn into_text(self) -> String {
        match self {
            Self::MessageRejected { why, .. }
            | Self::Closed(why)
            | Self::VersionUnsupported(why)
            | Self::Other(why) => why,
            Self::NoAnswer => NO_ANSWER.into(),
            Self::RetainUnsupported => "the broker does not support retained messages".into(),
            Self::Qos1Unsupported => "the broker does not support QoS 1".into(),
            Self::IncomingTooLarge => INCOMING_TOO_LARGE.into(),
            Self::TakenOver => TAKEN_OVER.into(),
        }
    }
}

/// What the reason code of a PUBACK means.
pub(super) fn pub_ack_outcome(reason: PubAckReason) -> PubAckOutcome {
    use PubAckOutcome as Outcome;
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Outcome::Accepted,
        // A quota is a matter of time: waiting loses nothing.
        PubAckReason::QuotaExceeded => Outcome::TryLater("a quota is used up"),
        PubAckReason::NotAuthorized => Outcome::Refused("this user may not publish there (not authorized)"),
        PubAckReason::PayloadFormatInvalid => Outcome::Refused("it does not take such a payload"),
        PubAckReason::TopicNameInvalid => Outcome::Refused("it does not take such a topic"),
        PubAckReason::PacketIdentifierInUse => Outcome::Unclear("it mistakes it for another message"),
        PubAckReason::ImplementationSpecificError => Outcome::Unclear("for a reason of its own"),
        PubAckReason::UnspecifiedError => Outcome::Unclear("it does not say why"),
    }
}

/// What the reason code of a CONNACK that refuses the connection means.
fn connection_refused(code: ConnectReturnCode) -> DisconnectReason {
    use ConnectReturnCode as Code;
    use DisconnectReason as Reason;
    Reason::Other(match code {
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
            return Reason::VersionUnsupported("the broker does not support this version of MQTT".into());
        }
        Code::RetainNotSupported => return Reason::RetainUnsupported,
        Code::QoSNotSupported => return Reason::Qos1Unsupported,
        Code::BadUserNamePassword => {
            "the broker refuses the user name or the password: check mqtt.username and mqtt.password_file"
                .into()
        }
        Code::NotAuthorized => {
            "the broker does not allow this user to connect (not authorized): check mqtt.username \
                                and mqtt.password_file"
                .into()
        }
        Code::ServerUnavailable | Code::ServiceUnavailable => "the broker says that it is unavailable".into(),
        Code::ServerBusy => "the broker says that it is busy".into(),
        Code::Banned => "the broker has banned this client".into(),
        Code::ConnectionRateExceeded => "the broker says that clients connect too often".into(),
        Code::QuotaExceeded => "the broker says that a quota is used up".into(),
        Code::BadClientId | Code::ClientIdentifierNotValid => {
            "the broker does not accept this client id: choose another node.id".into()
        }
        Code::BadAuthenticationMethod => "the broker asks for another authentication method".into(),
        Code::UseAnotherServer | Code::ServerMoved => "the broker has moved: change mqtt.url".into(),
        Code::TopicNameInvalid => {
            "the broker does not accept the status topic: check mqtt.topic_prefix".into()
        }
        other => format!("the broker refuses the connection ({other:?})"),
    })
}

/// Why the connection ended, from an error of rumqttc's MQTT 5 client.
pub(super) fn disconnect_reason(error: &ConnectionError) -> DisconnectReason {
    use DisconnectReason as Reason;
    use DisconnectReasonCode as Code;
    let rejected = |why: &str, too_large| Reason::MessageRejected { why: why.into(), too_large };
    match error {
        ConnectionError::ConnectionRefused(code) => connection_refused(*code),
        ConnectionError::Timeout(_) => Reason::NoAnswer,
        ConnectionError::Io(error) => {
            Reason::Other(format!("{error}: check mqtt.url, and that the broker runs"))
        }
        ConnectionError::Tls(error) => Reason::Other(tls(error)),
        ConnectionError::NotConnAck(_) => Reason::Other(NOT_MQTT.into()),
        ConnectionError::RequestsDone => Reason::Other("camscribe closed the connection".into()),
        ConnectionError::MqttState(state) => match state {
            // A reason code for a publish that rumqttc 0.25 does not know; it drops the connection then.
            // 0x95 is MQTT 5's "packet too large": mosquitto sends it for its message_size_limit.
            StateError::Deserialization(CodecError::InvalidConnectReturnCode(0x95)) => {
                rejected(TOO_LARGE, true)
            }
            StateError::Deserialization(CodecError::InvalidConnectReturnCode(code)) => {
                Reason::MessageRejected { why: format!("reason code {code:#04x}"), too_large: false }
            }
            StateError::OutgoingPacketTooLarge { .. } => rejected(TOO_LARGE, true),
            StateError::ServerDisconnect { reason_code, .. } => match reason_code {
                Code::PacketTooLarge => rejected(TOO_LARGE, true),
                Code::PayloadFormatInvalid => rejected("it does not take such a payload", false),
                Code::TopicNameInvalid => rejected("it does not take such a topic", false),
                Code::NotAuthorized => rejected("this user may not publish there (not authorized)", false),
                Code::MalformedPacket | Code::ProtocolError => rejected("it calls it malformed", false),
                Code::QuotaExceeded => Reason::Other("the broker says that a quota is used up".into()),
                Code::SessionTakenOver => Reason::TakenOver,
                Code::ServerShuttingDown => Reason::Other("the broker is shutting down".into()),
                other => Reason::Other(format!("the broker ended the connection ({other:?})")),
            },
            StateError::ConnectionAborted => Reason::Closed(CLOSED.into()),
            StateError::AwaitPingResp => Reason::Other(NO_PING_RESPONSE.into()),
            StateError::Deserialization(CodecError::PayloadSizeLimitExceeded { .. }) => {
                Reason::IncomingTooLarge
            }
            StateError::CollisionTimeout => Reason::Other(NO_ACKNOWLEDGEMENT.into()),
            StateError::Io(error) | StateError::Deserialization(CodecError::Io(error)) => broken(error),
            other => malformed(other),
        },
    }
}

/// Why the connection ended, from an error of rumqttc's MQTT 3.1.1 client.
pub(super) fn disconnect_reason_311(error: &rumqttc::ConnectionError) -> DisconnectReason {
    use DisconnectReason as Reason;
    use rumqttc::{
        ConnectReturnCode as Code, ConnectionError as Error, StateError as State, mqttbytes::Error as Codec,
    };
    match error {
        Error::ConnectionRefused(code) => connection_refused(match code {
            Code::RefusedProtocolVersion => ConnectReturnCode::RefusedProtocolVersion,
            Code::BadClientId => ConnectReturnCode::BadClientId,
            Code::ServiceUnavailable => ConnectReturnCode::ServiceUnavailable,
            Code::BadUserNamePassword => ConnectReturnCode::BadUserNamePassword,
            Code::NotAuthorized => ConnectReturnCode::NotAuthorized,
            Code::Success => ConnectReturnCode::UnspecifiedError,
        }),
        Error::NetworkTimeout => Reason::NoAnswer,
        Error::FlushTimeout => Reason::Other(NO_ANSWER.into()),
        Error::Io(error) => Reason::Other(format!("{error}: check mqtt.url, and that the broker runs")),
        Error::Tls(error) => Reason::Other(tls(error)),
        Error::NotConnAck(_) => Reason::Other(NOT_MQTT.into()),
        Error::RequestsDone => Reason::Other("camscribe closed the connection".into()),
        Error::MqttState(state) => match state {
            State::ConnectionAborted => Reason::Closed(CLOSED.into()),
            State::AwaitPingResp => Reason::Other(NO_PING_RESPONSE.into()),
            State::CollisionTimeout => Reason::Other(NO_ACKNOWLEDGEMENT.into()),
            State::Deserialization(Codec::PayloadSizeLimitExceeded(_)) => Reason::IncomingTooLarge,
            State::Io(error) | State::Deserialization(Codec::Io(error)) => broken(error),
            other => malformed(other),
        },
    }
}

const CLOSED: &str = "the broker closed the connection";
/// What to check when the broker always closes the connection before it has accepted it.
pub(super) const CLOSED_BEFORE_CONNACK: &str =
    "if it always does: it must speak MQTT, and TLS if and only if mqtt.url says mqtts";
/// What to check when the broker closes an accepted connection again and again. Before MQTT 5, a broker
/// cannot say that another client took the session over.
pub(super) const CLOSED_AFTER_CONNACK: &str =
    "if it does so again and again: does a second camscribe run with this node.id?";
/// Another server than an MQTT broker listens there.
pub(super) const NOT_MQTT: &str = "the server there does not speak MQTT";
const NO_ANSWER: &str = "no answer in time: check mqtt.url, and that the broker runs";
const INCOMING_TOO_LARGE: &str = "somebody publishes far too much on a topic that camscribe subscribes to (Home \
                                  Assistant's status, or set/…): commands are not received for ten minutes";
/// A message that the broker refuses for its size.
pub(super) const TOO_LARGE: &str = "it is larger than the broker takes: raise its limit on message sizes";
const TAKEN_OVER: &str =
    "another client has connected with the same client id: does a second camscribe run with this node.id?";
const NO_PING_RESPONSE: &str = "the broker no longer answers";
const NO_ACKNOWLEDGEMENT: &str = "the broker does not acknowledge messages";

fn malformed(error: &impl std::fmt::Display) -> DisconnectReason {
    DisconnectReason::Other(format!("the broker sent a packet that is not valid MQTT: {error}"))
}

/// Why an accepted connection broke. With TLS 1.3 a broker checks our certificate only then.
fn broken(error: &io::Error) -> DisconnectReason {
    match certificate_error(error) {
        Some(why) => DisconnectReason::Other(why),
        None => DisconnectReason::Closed(error.to_string()),
    }
}

fn tls(error: &rumqttc::TlsError) -> String {
    match error {
        rumqttc::TlsError::Io(error) => certificate_error(error)
            .unwrap_or_else(|| format!("TLS failed: {error}: check mqtt.url and mqtt.ca_file")),
        error => format!("TLS failed: {error}: check mqtt.url"),
    }
}

/// What is wrong with a certificate, if that is the cause of `error`.
fn certificate_error(error: &io::Error) -> Option<String> {
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
                "TLS failed: the broker's certificate is not signed by a trusted authority: check mqtt.url and \
                 mqtt.ca_file"
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
