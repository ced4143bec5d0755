//! What to do about a server that cannot be connected to.

use super::report::advice_of_now;
use crate::storage::valkey::options::ValkeyOptions;

/// Returns advice for the text of an error.
pub(super) fn advice_for_connecting(error: &str, options: &ValkeyOptions) -> &'static str {
    let has = |part: &str| error.contains(part);
    if has("WRONGPASS") || has("NOAUTH") || has("AuthenticationFailed") || has("authentication") {
        "the server refuses the login; look at VALKEY_USERNAME and VALKEY_PASSWORD, or at the URL"
    } else if let Some(advice) = advice_of_now(error) {
        advice
    } else if has("NOPERM") || has("PermissionDenied") || has("set client name") {
        "the server's user lacks a right that connecting needs (+info, +select, +client|setname): give it those of docs/valkey.md"
    } else if has("certificate") || has("UnknownIssuer") || has("tls") || has("TLS") {
        "the certificates do not fit; look at VALKEY_CA_PATH, and at the host name in the server's certificate"
    } else if has("No primary node") {
        "the server is a replica; name its primary"
    } else if has("the sentinels of") {
        "the sentinels name no primary that can be used; look at the name behind the `/` of the URL, and at what they say above"
    } else if has("more than one server says") {
        "several servers of one URL are one primary with its replicas, or servers of one cluster; servers that stand alone side by side are for VALKEY_PLACEMENT"
    } else if has("switch database") || has("DB index") {
        "the server has no database of this number; look at the number behind the `/` of the URL, or VALKEY_DATABASE, and at `databases` in the server's configuration"
    } else if has("lookup address") || has("Name or service") || has("resolve") {
        "no address is known for this host name; look at how it is written, and whether this machine can look it up"
    } else if !options.target.tls && has("driver unexpectedly terminated") {
        "what listens there does not speak the protocol of Valkey: is it the port of an HTTP server, or does it want TLS (valkeys:// or rediss://)?"
    } else if has("refused") || has("cannot reach") {
        "nothing listens there; is the server running, and are host and port right?"
    } else if options.target.tls && options.client_identity.is_none() {
        "does the server speak TLS on this port, and without a client certificate? If it asks for one, set TIDEMILL_VALKEY_CLIENT_CERT_PATH and TIDEMILL_VALKEY_CLIENT_KEY_PATH"
    } else if options.target.tls {
        "does the server speak TLS on this port, and does it trust the client certificate? Without TLS the scheme is valkey:// or redis://"
    } else {
        "is a server there that answers, and does it speak plain TCP on this port? With TLS the scheme is valkeys:// or rediss://"
    }
}
