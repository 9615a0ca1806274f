//! What the facades that speak JSON share.

use std::net::IpAddr;

/// Whether a `Host` is an IP address or `localhost`, with or without a port. Only other names can be made to
/// resolve to this server by somebody else.
pub fn is_address(host: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_pass_as_host() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9001",
            "localhost",
            "LOCALHOST:1",
            "[::1]",
            "[::1]:9001",
            "10.0.0.7:80",
        ] {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "",
            ":9001",
            "evil.example",
            "evil.example:9001",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost:x",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }
}
