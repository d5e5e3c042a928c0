//! What is in a packet.

use std::net::SocketAddr;

use bytes::Bytes;
use turmoil_net::{NetstatEntry, Packet, TcpFlags, TcpSegment, Transport, netstat};

use super::Flow;

/// Which flow a packet belongs to; none if it is not TCP.
pub(super) fn flow_of(packet: &Packet) -> Option<Flow> {
    let Transport::Tcp(tcp) = &packet.payload else { return None };
    let from = SocketAddr::new(packet.src, tcp.src_port);
    Some((from, SocketAddr::new(packet.dst, tcp.dst_port)))
}

/// Whether it carries bytes.
pub(super) fn has_data(packet: &Packet) -> bool {
    matches!(&packet.payload, Transport::Tcp(tcp) if !tcp.payload.is_empty())
}

/// Its flags; none are set where it is not TCP.
pub(super) fn flags_of(packet: &Packet) -> TcpFlags {
    match &packet.payload {
        Transport::Tcp(tcp) => tcp.flags,
        Transport::Udp(_) => TcpFlags::default(),
    }
}

/// Whether the sender of a flow still has its socket.
pub(super) fn has_socket((from, to): Flow) -> bool {
    let mine = |entry: &NetstatEntry| entry.local == from && entry.peer == Some(to);
    netstat(from.ip()).entries.iter().any(mine)
}

/// A RST of a flow.
pub(super) fn reset_packet((from, to): Flow) -> Packet {
    let flags = TcpFlags { rst: true, ..TcpFlags::default() };
    let segment = TcpSegment {
        src_port: from.port(),
        dst_port: to.port(),
        seq: 0,
        ack: 0,
        flags,
        window: 0,
        payload: Bytes::new(),
    };
    Packet { src: from.ip(), dst: to.ip(), ttl: 64, payload: Transport::Tcp(segment) }
}
