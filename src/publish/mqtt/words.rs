//! The protocol's reason codes and the library's errors, in words for the person at the keyboard.

use rumqttc::v5::{
    ConnectionError, StateError,
    mqttbytes::{
        Error as CodecError,
        v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason},
    },
};

/// Why the broker refuses to let us in.
pub(super) fn refusal(code: ConnectReturnCode) -> String {
    use ConnectReturnCode as Code;
    match code {
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
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
            "the broker does not speak MQTT 5".into()
        }
        Code::BadAuthenticationMethod => "the broker wants another way to log in".into(),
        Code::UseAnotherServer | Code::ServerMoved => "the broker has moved: change mqtt.url".into(),
        Code::TopicNameInvalid => "the broker does not take our status topic: check mqtt.topic_prefix".into(),
        other => format!("the broker refuses the connection ({other:?})"),
    }
}

/// Why the broker did not take a message, or nothing if it took it.
pub(super) fn rejection(reason: PubAckReason) -> Option<&'static str> {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
        PubAckReason::NotAuthorized => Some("this user may not publish there (not authorized)"),
        PubAckReason::QuotaExceeded => Some("a quota is used up"),
        PubAckReason::PayloadFormatInvalid => Some("it does not take such a payload"),
        PubAckReason::TopicNameInvalid => Some("it does not take such a topic"),
        PubAckReason::PacketIdentifierInUse => Some("it mistakes it for another message"),
        PubAckReason::ImplementationSpecificError => Some("for a reason of its own"),
        PubAckReason::UnspecifiedError => Some("it does not say why"),
    }
}

/// How a connection ended, as far as the messages on it are concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The broker objects to a message that was under way.
    Rejected {
        /// In words.
        why: String,
        /// A smaller one would do.
        too_large: bool,
    },
    /// The other side hung up and did not say why; perhaps because of a message.
    HungUp(String),
    /// Messages have nothing to do with it.
    Lost(String),
}

impl Ending {
    /// In words.
    pub fn why(self) -> String {
        match self {
            Self::Rejected { why, .. } | Self::HungUp(why) | Self::Lost(why) => why,
        }
    }
}

/// What `error` says about the connection that it ended.
pub(super) fn ending(error: &ConnectionError) -> Ending {
    use DisconnectReasonCode as Code;
    let ConnectionError::MqttState(state) = error else { return Ending::Lost(trouble(error)) };
    let rejected = |why: &str, too_large| Ending::Rejected { why: why.into(), too_large };
    match state {
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
            Code::QuotaExceeded => rejected("a quota is used up", false),
            Code::PayloadFormatInvalid => rejected("it does not take such a payload", false),
            Code::TopicNameInvalid => rejected("it does not take such a topic", false),
            Code::NotAuthorized => rejected("this user may not publish there (not authorized)", false),
            Code::MalformedPacket | Code::ProtocolError => rejected("it takes it for malformed", false),
            Code::SessionTakenOver => Ending::Lost(
                "another client has connected with the same client id: does a second camscribe run with \
                 this node.id?"
                    .into(),
            ),
            Code::ServerShuttingDown => Ending::Lost("the broker is shutting down".into()),
            other => Ending::Lost(format!("the broker ended the connection ({other:?})")),
        },
        StateError::ConnectionAborted
        | StateError::Io(_)
        | StateError::Deserialization(CodecError::Io(_)) => Ending::HungUp(trouble(error)),
        _ => Ending::Lost(trouble(error)),
    }
}

/// Why there is no connection.
pub(super) fn trouble(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => refusal(*code),
        ConnectionError::Timeout(_) => {
            "no answer in time: check mqtt.url, and that the broker runs".into()
        }
        ConnectionError::Io(error) => format!("{error}: check mqtt.url, and that the broker runs"),
        ConnectionError::Tls(rumqttc::TlsError::Io(error)) => {
            format!("TLS failed: {error}: check mqtt.url and mqtt.ca_file")
        }
        ConnectionError::Tls(error) => format!("TLS failed: {error}"),
        ConnectionError::NotConnAck(_) => "what answers there does not speak MQTT 5".into(),
        ConnectionError::RequestsDone => "the connection was closed from our side".into(),
        ConnectionError::MqttState(state) => match state {
            StateError::ConnectionAborted => {
                "the broker hung up instead of answering: it must speak MQTT 5, and TLS if and only if mqtt.url \
                 says mqtts"
                    .into()
            }
            StateError::AwaitPingResp => "the broker no longer answers".into(),
            StateError::CollisionTimeout => "the broker does not acknowledge messages".into(),
            StateError::Io(error) | StateError::Deserialization(CodecError::Io(error)) => error.to_string(),
            other => format!("the broker sent something that is not understood: {other}"),
        },
    }
}
