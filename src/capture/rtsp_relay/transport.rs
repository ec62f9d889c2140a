//! Pure: how a camera and its client agree on the way that packets take (RFC 2326, section 12.39).

use std::net::IpAddr;

use super::message::Message;

/// Adds what the client would otherwise take from its connection, or miss: the channels that it has asked for, or
/// where datagrams come from.
pub(super) fn complete(request: &Message, response: &mut Message, peer: Option<IpAddr>) {
    let asked = request.header("Transport").unwrap_or_default();
    let channels = asked.split([';', ',']).map(str::trim).find(|part| part.starts_with("interleaved="));
    let transport = response.header("Transport").unwrap_or_default().trim_end_matches(';');
    let has = |part: &str| transport.contains(part);
    let completed = match channels {
        Some(channels) if transport.is_empty() => format!("RTP/AVP/TCP;unicast;{channels}"),
        Some(channels) if !has("interleaved=") && !has("client_port=") => format!("{transport};{channels}"),
        _ => match peer {
            Some(peer)
                if channels.is_none() && !transport.is_empty() && !has("multicast") && !has("source=") =>
            {
                format!("{transport};source={peer}")
            }
            _ => return,
        },
    };
    response.set_header("Transport", completed);
}

#[cfg(test)]
mod tests {
    use super::{super::message::Piece, super::message::first_piece, *};

    #[test]
    fn what_is_missing_is_what_was_asked_for() {
        let tcp = "RTP/AVP/TCP;unicast;interleaved=0-1";
        for (asked, answered, completed) in [
            (tcp, "RTP/AVP/TCP;unicast", tcp),
            (tcp, "", tcp),
            (tcp, "RTP/AVP/TCP;interleaved=8-9", "RTP/AVP/TCP;interleaved=8-9"),
            ("RTP/AVP;client_port=5-6", "RTP/AVP;server_port=7-8", "RTP/AVP;server_port=7-8;source=10.0.0.9"),
            ("RTP/AVP;client_port=5-6", "RTP/AVP;source=10.0.0.8", "RTP/AVP;source=10.0.0.8"),
            ("RTP/AVP;multicast", "RTP/AVP;multicast;port=5-6", "RTP/AVP;multicast;port=5-6"),
        ] {
            let mut request = Message::request("SETUP", "rtsp://camera/live");
            request.set_header("Transport", asked);
            let text = format!("RTSP/1.0 200 OK\r\nTransport: {answered}\r\n\r\n");
            let Ok(Some((Piece::Message(mut response), _))) = first_piece(text.as_bytes()) else {
                panic!("no message: {text}")
            };
            complete(&request, &mut response, "10.0.0.9".parse().ok());
            assert_eq!(response.header("Transport"), Some(completed), "{asked}, {answered}");
        }
    }
}
