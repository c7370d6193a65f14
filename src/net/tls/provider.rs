//! What rustls takes from ring: the thinnest provider that serves today's clients.
//!
//! rustls' own provider for ring also verifies signatures, which a server without certificates of
//! clients never does.

use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::Error;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

/// What ring does beyond suites and key exchanges.
#[derive(Debug)]
struct Ring;

impl SecureRandom for Ring {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        SystemRandom::new().fill(bytes).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for Ring {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        any_supported_type(&key)
    }
}

/// Whether ChaCha20-Poly1305 is among the suites. It takes 55 KB of the static binary for x86-64, for
/// ring has its loops unrolled there for two kinds of processors. Processors of x86-64 have instructions
/// for AES, which every client speaks (RFC 8446 9.1); others do not, and are faster with ChaCha20.
const HAS_CHACHA: bool = !cfg!(all(hublet_small, target_arch = "x86_64"));

/// The order of the client counts: only it knows whether its processor has instructions for AES.
pub(crate) fn provider() -> CryptoProvider {
    let mut cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    if HAS_CHACHA {
        cipher_suites.extend([
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ]);
    }
    CryptoProvider {
        cipher_suites,
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &Ring,
        key_provider: &Ring,
    }
}
