//! Which URLs may be fetched, and which addresses may be connected to.

use reqwest::header::HeaderValue;

use super::*;

#[test]
fn urls_are_encrypted_or_lead_to_this_machine() {
    let may = [
        "https://issuer.example/.well-known/jwks.json",
        "https://issuer.example:8443/keys?v=1",
        "https://10.1.2.3/keys",
        "https://[fd12::1]/keys",
        "https://127.0.0.1/keys",
        "http://127.0.0.1:8080/keys",
        "http://127.9.9.9/keys",
        "http://[::1]:8080/keys",
        "http://[::ffff:127.0.0.1]/keys",
        "http://localhost:8080/keys",
        "http://issuer.localhost/keys",
    ];
    for url in may {
        assert!(FetchUrl::parse(url).is_ok(), "{url}: {:?}", FetchUrl::parse(url));
    }
    let may_not = [
        "",
        "issuer.example/keys",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://issuer.example/keys",
        "data:application/json,{}",
        "http://issuer.example/keys",
        "http://10.1.2.3/keys",
        "http://notlocalhost/keys",
        "http://localhost.example/keys",
        "https://user@issuer.example/keys",
        "https://user:password@issuer.example/keys",
        "https://issuer.example/keys#fragment",
        "https://169.254.169.254/latest/meta-data",
        "http://169.254.169.254/latest/meta-data",
        "https://2852039166/latest/meta-data",
        "https://0xa9fea9fe/latest/meta-data",
        "https://0251.0376.0251.0376/latest/meta-data",
        "https://[fe80::1]/keys",
        "https://[::ffff:169.254.169.254]/keys",
        "https://[::169.254.169.254]/keys",
        "https://[64:ff9b::169.254.169.254]/keys",
        "https://[64:ff9b::127.0.0.1]/keys",
        "https://[2002:a9fe:a9fe::]/keys",
        "https://[fd00:ec2::254]/keys",
        "https://100.100.100.200/keys",
        "https://168.63.129.16/keys",
        "https://0.0.0.0/keys",
        "http://0.0.0.0/keys",
        "http://0/keys",
        "https://[::]/keys",
        "https://255.255.255.255/keys",
        "https://224.0.0.1/keys",
        "https://[ff02::1]/keys",
    ];
    for url in may_not {
        assert!(FetchUrl::parse(url).is_err(), "{url}");
    }
}

#[test]
fn names_lead_where_they_say() {
    let check = |name: &str, ips: &[&str]| {
        let addresses: Vec<_> = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        check_addresses(name, &addresses)
    };
    assert_eq!(check("issuer.example", &["192.0.2.1", "2001:db8::1"]), Ok(()));
    assert_eq!(check("issuer.internal", &["10.0.0.1", "fd12::1"]), Ok(()));
    assert_eq!(check("localhost", &["127.0.0.1", "::1"]), Ok(()));
    assert_eq!(check("LOCALHOST.", &["127.0.0.1"]), Ok(()));
    let forbidden = [
        ("issuer.example", "169.254.169.254"),
        ("issuer.example", "fe80::1"),
        ("issuer.example", "::ffff:169.254.169.254"),
        ("issuer.example", "64:ff9b::a9fe:a9fe"),
        ("issuer.example", "fd00:ec2::254"),
        ("issuer.example", "127.0.0.1"),
        ("issuer.example", "::1"),
        ("issuer.example", "::ffff:127.0.0.1"),
        ("issuer.example", "0.0.0.0"),
        ("localhost", "192.0.2.1"),
        ("localhost", "169.254.169.254"),
    ];
    for (name, ip) in forbidden {
        let refused = Err(Forbidden { name: name.to_owned(), address: ip.parse().unwrap() });
        assert_eq!(check(name, &[ip]), refused, "{name} {ip}");
        // One wrong address among right ones, as an answer that is to be tried until it works.
        let right = if is_local(name) { "127.0.0.1" } else { "192.0.2.1" };
        assert_eq!(check(name, &[right, ip]), refused, "{name} {ip}");
    }
}

#[test]
fn how_long_an_answer_may_be_kept_is_read_or_left_out() {
    let read = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        max_age(&headers).map(|age| age.as_secs())
    };
    assert_eq!(read(&["max-age=300"]), Some(300));
    assert_eq!(read(&["public, Max-Age=\"60\", must-revalidate"]), Some(60));
    assert_eq!(read(&["public", "max-age=0"]), Some(0));
    for none in [
        "",
        "no-store",
        "max-age",
        "max-age=",
        "max-age=x",
        "max-age=-1",
        "s-maxage=5",
        "max-age=99999999999999999999",
    ] {
        assert_eq!(read(&[none]), None, "{none}");
    }
    assert_eq!(read(&[]), None);
}
