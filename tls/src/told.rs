//! What is wrong with a certificate, in words: the library writes some of it as its code has it.
//!
//! It must not know who is told.

/// How the library begins all that it says of a certificate.
const START: &str = "invalid peer certificate: ";

/// Returns in words what the library says of a certificate that is not trusted, where it stands at the end of a
/// text; `None` where the text is about something else.
#[must_use]
pub fn untrusted(text: &str) -> Option<String> {
    let (_, said) = text.split_once(START)?;
    let name = said.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default();
    let words = match name {
        "UnknownIssuer" => "nobody who is trusted has signed it",
        "BadSignature"
        | "UnsupportedSignatureAlgorithm"
        | "UnsupportedSignatureAlgorithmContext"
        | "UnsupportedSignatureAlgorithmForPublicKeyContext" => {
            "it is not signed with the key of who is trusted under the name that it gives"
        }
        "Other" if said.contains("CaUsedAsEndEntity") => {
            "it is that of an authority, and none of a server; it needs `basicConstraints=CA:FALSE`"
        }
        "ApplicationVerificationFailure" => "it is another one than the one that is expected",
        "BadEncoding" => "it cannot be read",
        "Revoked" => "it is revoked",
        "UnhandledCriticalExtension" => "it has an extension that is not known here and must be",
        "InvalidPurpose" | "InvalidPurposeContext" => "it is not one for servers",
        // Sentences of the library.
        "certificate" => return Some(said.to_owned()),
        _ => "it cannot be checked",
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error};

    use super::*;

    #[test]
    fn what_the_library_writes_as_code_is_told_in_words() {
        let debug = "invalid peer certificate: UnsupportedSignatureAlgorithmForPublicKeyContext { signature_algorithm_id: [6, 8, 42], public_key_algorithm_id: [6, 7] }";
        let other = "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))";
        let written = [
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
            CertificateError::BadEncoding,
            CertificateError::Revoked,
            CertificateError::UnhandledCriticalExtension,
            CertificateError::InvalidPurpose,
            CertificateError::ApplicationVerificationFailure,
            CertificateError::UnknownRevocationStatus,
        ];
        let written = written.map(|error| Error::from(error).to_string());
        for text in [debug, other].into_iter().chain(written.iter().map(String::as_str)) {
            let told = untrusted(&format!("client error: {text}")).expect(text);
            assert!(told.starts_with("it ") || told.starts_with("nobody "), "{text}: {told}");
            assert!(!told.contains(['{', '[', '(']), "{text}: {told}");
        }
    }

    #[test]
    fn sentences_of_the_library_stay_and_other_faults_are_none_of_a_certificate() {
        let name =
            "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for b";
        let told = untrusted(name).expect("it is about a certificate");
        assert!(told.starts_with("certificate not valid for name \"a\""), "{told}");
        assert_eq!(untrusted("connection refused"), None);
    }
}
