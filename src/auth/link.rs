//! Signed links: whoever holds one may do one thing with one UID until its time.
//!
//! A signature is one text, because clients take links apart and keep only the parameters they know:
//!
//! ```text
//!   base64url, without padding, of
//!   1 byte    version, 1
//!   8 bytes   the key's number, big-endian
//!   32 bytes  HMAC-SHA256 of all that the link says, and of the issuer
//!   n bytes   the issuer: the access key that made the link, in clear; none where callers have no key
//! ```
//!
//! Keys are random, sealed by the master key in SQL, so that every node checks the links of every other. The newest
//! key signs; it is followed by another after [`SIGNS_FOR`], and verifies until its last link has expired.
//! That a link is genuine says who made it, not what they may do now: the facade asks that as for any request.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use sha2::Sha256;
use time::format_description::FormatItem;
use time::{OffsetDateTime, PrimitiveDateTime};
use zeroize::Zeroizing;

use crate::keys::{KEY_BYTES, MasterKey, fill};
use crate::meta::link_keys::{self, LinkKeyRow};
use crate::meta::{MetaStore, install};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::Fault;
use crate::model::ids::{Uid, UidGenerator};

/// The longest a link lives.
pub const LINK_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How far ahead of ours a link's clock may be.
const SKEW_MAX: Millis = 5 * 60 * 1000;
/// How long a key signs before another does.
const SIGNS_FOR: Millis = 30 * 86_400 * 1000;
/// How long after its successor was made a key is kept: the life of a link, and a day for clocks that differ.
const KEPT_FOR: Millis = LINK_MAX.as_millis() as Millis + 86_400 * 1000;
/// How long an opened key is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// Keys remembered.
const REMEMBERED: u64 = 64;
/// Longest issuer, in bytes: an access key.
const ISSUER_MAX: usize = 128;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const MAC_BYTES: usize = 32;
/// What comes before everything else that is signed, so that no other use of a key can make a link.
const LABEL: &[u8] = b"osproxy link 1\0";

/// What a link may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To send what the UID will name.
    Upload,
    /// To read what the UID names.
    Download,
}

/// What a download link says besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What the bytes are saved as.
    pub name: &'a str,
    /// Where they are.
    pub bucket: &'a str,
    /// Under which key.
    pub object: &'a str,
}

/// All that a link says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms<'a> {
    /// What it may be used for.
    pub purpose: Purpose,
    /// With what.
    pub uid: Uid,
    /// When it was made.
    pub date: LinkDate,
    /// For how many seconds it lives.
    pub expire: u32,
    /// What a download link says besides; empty for uploads.
    pub subject: Subject<'a>,
}

/// A moment in whole seconds, written as `2026-01-02T03:04:05Z` and in no other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkDate(i64);

const DATE: &[FormatItem<'_>] =
    time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

impl LinkDate {
    /// The second that `now` lies in.
    pub fn of(now: Millis) -> Self {
        Self(now.div_euclid(1000))
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let moment = PrimitiveDateTime::parse(text, &DATE).ok()?;
        Some(Self(moment.assume_utc().unix_timestamp())).filter(|date| date.to_string() == text)
    }

    fn millis(self) -> Millis {
        self.0.saturating_mul(1000)
    }
}

impl fmt::Display for LinkDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp(self.0);
        let text = moment.ok().and_then(|moment| moment.format(&DATE).ok());
        f.write_str(&text.unwrap_or_default())
    }
}

/// Why a link opens nothing.
#[derive(Debug)]
pub enum LinkProblem {
    /// Its time is over.
    Expired,
    /// Its time has not come, or it claims to live for too long.
    Time,
    /// It was not made here for this.
    Signature,
    /// It is not known, because a store failed.
    Fault(Fault),
}

impl From<Fault> for LinkProblem {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Signs and checks. Shared by all requests.
pub struct Links {
    meta: MetaStore,
    master_key: MasterKey,
    clock: Clock,
    uids: Arc<UidGenerator>,
    /// The key that signs.
    current: Mutex<Option<Arc<LinkKey>>>,
    opened: Cache<i64, Arc<LinkKey>>,
}

/// A key that was opened.
struct LinkKey {
    id: i64,
    created: Millis,
    key: Zeroizing<Vec<u8>>,
}

impl Links {
    /// Links of the install that `master_key` belongs to.
    pub fn new(
        meta: MetaStore,
        master_key: MasterKey,
        clock: Clock,
        uids: Arc<UidGenerator>,
    ) -> Self {
        Self {
            meta,
            master_key,
            clock,
            uids,
            current: Mutex::default(),
            opened: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(REMEMBERED_FOR)
                .build(),
        }
    }

    /// The signature of a link that `issuer` makes; empty for one that is made without a key.
    pub async fn sign(&self, terms: &Terms<'_>, issuer: &str) -> Result<String, Fault> {
        let key = self.signing_key().await?;
        let mac = key.mac(terms, issuer).finalize().into_bytes();
        let parts = [
            &[VERSION][..],
            &key.id.to_be_bytes(),
            &mac,
            issuer.as_bytes(),
        ];
        Ok(BASE64.encode(parts.concat()))
    }

    /// Who made a link, when it is genuine and its time is now.
    pub async fn check(&self, terms: &Terms<'_>, signature: &str) -> Result<String, LinkProblem> {
        let (now, date) = (self.clock.now(), terms.date.millis());
        let life = i64::from(terms.expire) * 1000;
        if date > now + SKEW_MAX || Duration::from_secs(terms.expire.into()) > LINK_MAX {
            return Err(LinkProblem::Time);
        }
        if now >= date.saturating_add(life) {
            return Err(LinkProblem::Expired);
        }
        let given = Signature::parse(signature).ok_or(LinkProblem::Signature)?;
        let key = self.key(given.key).await?.ok_or(LinkProblem::Signature)?;
        // In constant time.
        key.mac(terms, &given.issuer)
            .verify_slice(&given.mac)
            .map_err(|_| LinkProblem::Signature)?;
        Ok(given.issuer)
    }

    /// The key that signs now, made when there is none or when it has signed for long enough.
    async fn signing_key(&self) -> Result<Arc<LinkKey>, Fault> {
        let now = self.clock.now();
        let fresh = |key: &Arc<LinkKey>| now < key.created + SIGNS_FOR;
        let remembered = self.current().clone().filter(fresh);
        if let Some(key) = remembered {
            return Ok(key);
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fill(key.as_mut())?;
        let id = self.uids.next()?;
        let new = LinkKeyRow {
            id,
            sealed: self.master_key.seal_link_key(id, &key)?,
            created: now,
        };
        let row = self
            .meta
            .transact("find link key", move |session| {
                let new = new.clone();
                Box::pin(async move {
                    install::lock(session).await?;
                    let mut keys = link_keys::all(session).await?;
                    if keys
                        .first()
                        .is_none_or(|newest| now >= newest.created + SIGNS_FOR)
                    {
                        link_keys::insert(session, &new).await?;
                        keys.insert(0, new);
                    }
                    for pair in keys.windows(2) {
                        if now >= pair[0].created + KEPT_FOR {
                            link_keys::delete(session, pair[1].id).await?;
                        }
                    }
                    Ok::<_, Fault>(keys.swap_remove(0))
                })
            })
            .await?;
        let key = Arc::new(self.open(&row)?);
        *self.current() = Some(Arc::clone(&key));
        Ok(key)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Arc<LinkKey>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key by its number. One that another node has made just now is found too.
    async fn key(&self, id: i64) -> Result<Option<Arc<LinkKey>>, Fault> {
        if let Some(key) = self.opened.get(&id) {
            return Ok(Some(key));
        }
        let found = self
            .meta
            .read("find link key", move |session| {
                Box::pin(link_keys::find(session, id))
            })
            .await?;
        let Some(row) = found else {
            return Ok(None);
        };
        let key = Arc::new(self.open(&row)?);
        self.opened.insert(id, Arc::clone(&key));
        Ok(Some(key))
    }

    fn open(&self, row: &LinkKeyRow) -> Result<LinkKey, Fault> {
        Ok(LinkKey {
            id: row.id,
            created: row.created,
            key: self.master_key.open_link_key(row.id, &row.sealed)?,
        })
    }
}

impl LinkKey {
    fn mac(&self, terms: &Terms<'_>, issuer: &str) -> Hmac<Sha256> {
        mac(&self.key, terms, issuer)
    }
}

/// Every text comes after its length, so that no two sets of terms are signed alike.
fn mac(key: &[u8], terms: &Terms<'_>, issuer: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(LABEL);
    mac.update(&[match terms.purpose {
        Purpose::Upload => b'u',
        Purpose::Download => b'd',
    }]);
    mac.update(&terms.uid.0.to_be_bytes());
    mac.update(&terms.date.0.to_be_bytes());
    mac.update(&terms.expire.to_be_bytes());
    let Subject {
        name,
        bucket,
        object,
    } = terms.subject;
    for text in [name, bucket, object, issuer] {
        mac.update(&(text.len() as u64).to_be_bytes());
        mac.update(text.as_bytes());
    }
    mac
}

/// A signature taken apart.
struct Signature {
    key: i64,
    mac: [u8; MAC_BYTES],
    issuer: String,
}

impl Signature {
    fn parse(text: &str) -> Option<Self> {
        const LONGEST: usize = 1 + KEY_ID_BYTES + MAC_BYTES + ISSUER_MAX;
        if text.len() > LONGEST.div_ceil(3) * 4 {
            return None;
        }
        let bytes = BASE64.decode(text).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (key, rest) = rest.split_first_chunk::<KEY_ID_BYTES>()?;
        let (mac, issuer) = rest.split_first_chunk::<MAC_BYTES>()?;
        if *version != VERSION || issuer.len() > ISSUER_MAX {
            return None;
        }
        Some(Self {
            key: i64::from_be_bytes(*key),
            mac: *mac,
            issuer: std::str::from_utf8(issuer).ok()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Millis = 86_400 * 1000;

    struct Install {
        links: Links,
        clock: Clock,
        _dir: tempfile::TempDir,
    }

    async fn install(now: Millis) -> Install {
        let dir = tempfile::tempdir().unwrap();
        let (links, clock) = node(dir.path(), now).await;
        Install {
            links,
            clock,
            _dir: dir,
        }
    }

    async fn node(dir: &std::path::Path, now: Millis) -> (Links, Clock) {
        let clock = Clock::manual(now);
        let meta = MetaStore::open(
            &dir.join("meta.db"),
            crate::meta::Durability::Relaxed,
            crate::telemetry::Metrics::new(),
        )
        .unwrap();
        let master_key = MasterKey::load(dir, None, &meta).await.unwrap();
        let uids = Arc::new(UidGenerator::new(clock.clone(), 1, 0));
        uids.extend(now + 1000 * DAY);
        (Links::new(meta, master_key, clock.clone(), uids), clock)
    }

    const NOW: Millis = 1_800_000_000_000;

    fn terms<'a>() -> Terms<'a> {
        Terms {
            purpose: Purpose::Download,
            uid: Uid(7),
            date: LinkDate::of(NOW),
            expire: 3600,
            subject: Subject {
                name: "a.txt",
                bucket: "b",
                object: "7.txt",
            },
        }
    }

    #[tokio::test]
    async fn a_link_opens_exactly_what_it_was_made_for() {
        let Install { links, .. } = install(NOW).await;
        let signature = links.sign(&terms(), "KEY").await.unwrap();
        assert_eq!(links.check(&terms(), &signature).await.unwrap(), "KEY");
        let subject = terms().subject;
        let other = [
            Terms {
                purpose: Purpose::Upload,
                ..terms()
            },
            Terms {
                uid: Uid(8),
                ..terms()
            },
            Terms {
                date: LinkDate(terms().date.0 + 1),
                ..terms()
            },
            Terms {
                expire: 3601,
                ..terms()
            },
            Terms {
                subject: Subject {
                    name: "b.txt",
                    ..subject
                },
                ..terms()
            },
            Terms {
                subject: Subject {
                    bucket: "c",
                    ..subject
                },
                ..terms()
            },
            Terms {
                subject: Subject {
                    object: "8.txt",
                    ..subject
                },
                ..terms()
            },
            // The same texts, cut elsewhere.
            Terms {
                subject: Subject {
                    name: "a.txtb",
                    bucket: "",
                    ..subject
                },
                ..terms()
            },
        ];
        for (index, other) in other.iter().enumerate() {
            let refused = links.check(other, &signature).await.unwrap_err();
            assert!(matches!(refused, LinkProblem::Signature), "case {index}");
        }
    }

    #[tokio::test]
    async fn any_changed_character_of_a_signature_is_refused() {
        let Install { links, .. } = install(NOW).await;
        let signature = links.sign(&terms(), "KEY").await.unwrap();
        for place in 0..signature.len() {
            let mut changed = signature.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let refused = links.check(&terms(), &changed).await.unwrap_err();
            assert!(matches!(refused, LinkProblem::Signature), "byte {place}");
            let cut = &signature[..place];
            assert!(links.check(&terms(), cut).await.is_err(), "{place} bytes");
        }
        for other in ["", "x", &"A".repeat(1000), &format!("{signature}A")] {
            assert!(links.check(&terms(), other).await.is_err(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_link_lives_from_its_date_to_its_end() {
        let Install { links, clock, .. } = install(NOW).await;
        let signature = links.sign(&terms(), "").await.unwrap();
        assert_eq!(links.check(&terms(), &signature).await.unwrap(), "");
        clock.advance(3_599_999);
        assert!(links.check(&terms(), &signature).await.is_ok());
        clock.advance(1);
        let refused = links.check(&terms(), &signature).await.unwrap_err();
        assert!(matches!(refused, LinkProblem::Expired));

        let later = Terms {
            date: LinkDate::of(clock.now() + SKEW_MAX),
            ..terms()
        };
        let signature = links.sign(&later, "").await.unwrap();
        assert!(links.check(&later, &signature).await.is_ok());
        let future = Terms {
            date: LinkDate(later.date.0 + 1),
            ..terms()
        };
        let signature = links.sign(&future, "").await.unwrap();
        let refused = links.check(&future, &signature).await.unwrap_err();
        assert!(matches!(refused, LinkProblem::Time));
        let long = Terms {
            expire: 7 * 86_400 + 1,
            ..terms()
        };
        let signature = links.sign(&long, "").await.unwrap();
        assert!(links.check(&long, &signature).await.is_err());
    }

    #[tokio::test]
    async fn another_node_checks_the_links_of_this_one_and_another_install_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = node(dir.path(), NOW).await;
        let (second, _) = node(dir.path(), NOW).await;
        let signature = first.sign(&terms(), "KEY").await.unwrap();
        assert_eq!(second.check(&terms(), &signature).await.unwrap(), "KEY");
        let again = second.sign(&terms(), "KEY").await.unwrap();
        assert_eq!(signature, again, "one key signs on all nodes");
        let Install { links: other, .. } = install(NOW).await;
        other.sign(&terms(), "KEY").await.unwrap();
        let refused = other.check(&terms(), &signature).await.unwrap_err();
        assert!(matches!(refused, LinkProblem::Signature));
    }

    #[tokio::test]
    async fn keys_change_and_verify_until_their_last_link_has_expired() {
        let dir = tempfile::tempdir().unwrap();
        let (links, clock) = node(dir.path(), NOW).await;
        clock.advance(SIGNS_FOR - 1);
        links.sign(&terms(), "").await.unwrap();
        *links.current() = None;
        let week = |now| Terms {
            date: LinkDate::of(now),
            expire: 7 * 86_400,
            ..terms()
        };
        let last = week(clock.now());
        let signature = links.sign(&last, "").await.unwrap();
        clock.advance(1 + SIGNS_FOR);
        let next = links.sign(&week(clock.now()), "").await.unwrap();
        assert_ne!(signature[..12], next[..12], "another key signs");
        clock.advance(-SIGNS_FOR - 1);
        links.opened.invalidate_all();
        assert!(links.check(&last, &signature).await.is_ok());
        // Once the successor is older than any link of the first can be, the first is gone.
        clock.advance(2 * SIGNS_FOR + 1);
        links.sign(&week(clock.now()), "").await.unwrap();
        let rows = links
            .meta
            .read("list", |session| Box::pin(link_keys::all(session)))
            .await
            .unwrap();
        assert_eq!(rows.len(), 2, "the first of three is gone");
    }

    #[test]
    fn a_date_has_one_form() {
        let date = LinkDate::parse("2026-01-02T03:04:05Z").unwrap();
        assert_eq!(date, LinkDate(1_767_323_045));
        assert_eq!(date.to_string(), "2026-01-02T03:04:05Z");
        for text in [
            "",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05+00:00",
            "2026-01-02T03:04:05.0Z",
            "2026-13-02T03:04:05Z",
            "2026-1-2T3:4:5Z",
            "1767323045",
        ] {
            assert_eq!(LinkDate::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn different_terms_are_never_signed_alike(
            a in ("[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}"),
            b in ("[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}"),
        ) {
            let sign = |(name, bucket, object, issuer): &(String, String, String, String)| {
                let terms = Terms { subject: Subject { name, bucket, object }, ..terms() };
                mac(b"key", &terms, issuer).finalize().into_bytes()
            };
            prop_assert_eq!(sign(&a) == sign(&b), a == b);
        }
    }
}
