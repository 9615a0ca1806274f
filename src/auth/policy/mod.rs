//! Policies: read once, asked often, knowing nothing but what they are asked.
//!
//! ```text
//!   text --> Policy::parse --> Policy --> Policy::judge(request) --> Judgement (allowed?, denied?)
//!                                 |
//!                                 +-----> Policy::is_public
//! ```
//!
//! What is not known yet, because nobody has read the object, makes a judgement [`Truth::Unknown`] where it
//! matters and nowhere else. The language is that of AWS ("IAM JSON policy element reference"); a document that
//! AWS refuses is [`Malformed`] with AWS's text.

mod actions;
mod condition;
mod json;
mod pattern;
mod principal;
mod truth;

use std::borrow::Cow;

use self::actions::Scope;
use self::condition::Condition;
use self::json::Json;
use self::pattern::{Case, Pattern, Signs, Unresolved};
use self::principal::{Named, Principals};

pub use self::condition::Network;
pub(super) use self::principal::Who;
pub(super) use self::truth::Truth;

/// Most bytes of a bucket's policy.
pub const POLICY_MAX_BYTES: usize = 20 * 1024;
/// What every resource of S3 begins with.
const RESOURCE: &str = "arn:aws:s3:::";

/// What a condition key has for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Absent,
    /// It belongs to the object, which has not been read.
    Unknown,
    /// One value, or several for keys that have several.
    Is(Vec<String>),
}

/// Why a document is no policy, as AWS says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(Cow<'static, str>);

impl Malformed {
    const NOT_JSON: Self = Self(Cow::Borrowed(
        "Policies must be valid JSON and the first byte must be '{'",
    ));
    const INVALID_JSON: Self = Self(Cow::Borrowed("This policy contains invalid Json"));
    const SYNTAX: Self = Self(Cow::Borrowed("Policy has invalid syntax"));
    const PRINCIPAL: Self = Self(Cow::Borrowed("Invalid principal in policy"));
    const ACTION: Self = Self(Cow::Borrowed("Policy has invalid action"));
    const RESOURCE: Self = Self(Cow::Borrowed("Policy has invalid resource"));
    const CONDITION_KEY: Self = Self(Cow::Borrowed("Policy has an invalid condition key"));
    const CONDITION_VALUE: Self = Self(Cow::Borrowed("Policy has an invalid condition value"));

    fn new(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    fn missing(element: &str) -> Self {
        Self::new(format!("Missing required field {element}"))
    }

    /// A principal that is nobody.
    pub fn invalid_principal() -> Self {
        Self::PRINCIPAL
    }
}

/// Where a document stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'b> {
    /// On the bucket of this name: its statements say about whom they are, and are about nothing else.
    Bucket(&'b str),
    /// On an access key or a session: its statements are about its holder, and may be about other services.
    Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// Whether a list says what is meant or what is not.
#[derive(Debug, Clone, PartialEq)]
enum Listed<T> {
    Only(T),
    AllBut(T),
}

#[derive(Debug, Clone, PartialEq)]
struct Statement {
    effect: Effect,
    /// `None` in the policy of a key.
    principals: Option<Listed<Principals>>,
    actions: Listed<Vec<Pattern>>,
    resources: Listed<Vec<Pattern>>,
    conditions: Vec<Condition>,
}

/// A policy that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What a policy is asked.
pub(super) struct Request<'r> {
    /// Who asks.
    pub(super) who: Who<'r>,
    /// The action's name, such as `s3:GetObject`.
    pub(super) action: &'r str,
    /// The resource's ARN; `*` for what has none.
    pub(super) resource: &'r str,
    /// The values of condition keys, which are given as the document writes them.
    pub(super) lookup: &'r dyn Fn(&str) -> Value,
}

/// What a policy says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judgement {
    /// A statement denies it.
    pub(super) denied: Truth,
    /// A statement allows it to the one who asks, or to everybody.
    pub(super) allowed: Truth,
    /// A statement allows it to the account of the one who asks.
    pub(super) allowed_account: Truth,
}

impl Judgement {
    /// What no policy says.
    pub(super) const SILENT: Self = Self {
        denied: Truth::No,
        allowed: Truth::No,
        allowed_account: Truth::No,
    };
}

impl Policy {
    /// Reads a document.
    pub fn parse(text: &str, place: Place<'_>) -> Result<Self, Malformed> {
        if !text.starts_with('{') {
            return Err(Malformed::NOT_JSON);
        }
        if text.len() > POLICY_MAX_BYTES {
            return Err(Malformed::new(format!(
                "Normalized policy document exceeds the maximum allowed size of {POLICY_MAX_BYTES} bytes."
            )));
        }
        let Some(Json::Object(fields)) = Json::read(text) else {
            return Err(Malformed::INVALID_JSON);
        };
        let (mut version, mut statements) = (None, None);
        for (name, value) in &fields {
            match (name.as_str(), value) {
                ("Version", Json::Text(text)) => version = Some(text.as_str()),
                ("Version", _) => return Err(Malformed::SYNTAX),
                ("Id", Json::Text(_)) => {}
                ("Id", _) => return Err(Malformed::SYNTAX),
                ("Statement", Json::List(list)) => statements = Some(list.iter().collect()),
                ("Statement", single) => statements = Some(vec![single]),
                _ => return Err(Malformed::new(format!("Unknown field {name}"))),
            }
        }
        let variables = match version {
            None | Some("2008-10-17") => false,
            Some("2012-10-17") => true,
            Some(_) => {
                return Err(Malformed::new(
                    "The policy must contain a valid version string".to_owned(),
                ));
            }
        };
        let statements: Vec<&Json> = statements.ok_or_else(|| Malformed::missing("Statement"))?;
        if statements.is_empty() {
            return Err(Malformed::missing("Statement"));
        }
        let mut sids = Vec::new();
        let statements = statements
            .into_iter()
            .map(|json| Statement::parse(json, place, variables, &mut sids))
            .collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// What the policy says of a request.
    pub(super) fn judge(&self, request: &Request<'_>) -> Judgement {
        let mut judgement = Judgement::SILENT;
        for statement in &self.statements {
            let named = statement.names(&request.who);
            if named == Named::No {
                continue;
            }
            let applies = statement.applies(request);
            let into = match (statement.effect, named) {
                (Effect::Deny, _) => &mut judgement.denied,
                (Effect::Allow, Named::Directly) => &mut judgement.allowed,
                (Effect::Allow, _) => &mut judgement.allowed_account,
            };
            *into = into.or(applies);
        }
        judgement
    }

    /// Whether it lets in more than fixed principals, or whoever comes from fixed places ("Blocking public
    /// access to your Amazon S3 storage", the meaning of "public").
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(|statement| {
            let open = match &statement.principals {
                Some(Listed::Only(principals)) => principals.is_everybody(),
                Some(Listed::AllBut(_)) => true,
                None => false,
            };
            open && statement.effect == Effect::Allow
                && !statement.conditions.iter().any(Condition::is_narrow)
        })
    }

    /// The tenants that it names, by name or canonical user id.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        let principals = self.statements.iter().filter_map(|s| s.principals.as_ref());
        principals.flat_map(|listed| match listed {
            Listed::Only(principals) | Listed::AllBut(principals) => principals.accounts(),
        })
    }
}

impl Statement {
    fn parse(
        json: &Json,
        place: Place<'_>,
        variables: bool,
        sids: &mut Vec<String>,
    ) -> Result<Self, Malformed> {
        let Json::Object(fields) = json else {
            return Err(Malformed::SYNTAX);
        };
        let (mut effect, mut conditions) = (None, Vec::new());
        let (mut principals, mut actions, mut resources) = (None, None, None);
        for (name, value) in fields {
            match name.as_str() {
                "Sid" => {
                    let Json::Text(sid) = value else {
                        return Err(Malformed::SYNTAX);
                    };
                    // S3 itself lets statements of a bucket share one.
                    if place == Place::Key && !sid.is_empty() && sids.contains(sid) {
                        return Err(Malformed::new(
                            "Statement IDs (SID) in a single policy must be unique.".to_owned(),
                        ));
                    }
                    sids.push(sid.clone());
                }
                "Effect" => effect = Some(Effect::parse(value)?),
                "Principal" => once(&mut principals, Listed::Only(Principals::parse(value)?))?,
                "NotPrincipal" => {
                    once(&mut principals, Listed::AllBut(Principals::parse(value)?))?;
                }
                "Action" => once(&mut actions, Listed::Only(action_list(value)?))?,
                "NotAction" => once(&mut actions, Listed::AllBut(action_list(value)?))?,
                "Resource" => {
                    once(
                        &mut resources,
                        Listed::Only(resource_list(value, variables)?),
                    )?;
                }
                "NotResource" => {
                    once(
                        &mut resources,
                        Listed::AllBut(resource_list(value, variables)?),
                    )?;
                }
                "Condition" => conditions = Condition::parse(value, variables)?,
                _ => return Err(Malformed::new(format!("Unknown field {name}"))),
            }
        }
        let statement = Self {
            effect: effect.ok_or_else(|| Malformed::missing("Effect"))?,
            principals,
            actions: actions.ok_or_else(|| Malformed::missing("Action"))?,
            resources: resources.ok_or_else(|| Malformed::missing("Resource"))?,
            conditions,
        };
        match place {
            Place::Bucket(bucket) => statement.check_for_bucket(bucket)?,
            Place::Key => statement.check_for_key()?,
        }
        Ok(statement)
    }

    fn check_for_bucket(&self, bucket: &str) -> Result<(), Malformed> {
        match (&self.principals, self.effect) {
            (None, _) => return Err(Malformed::missing("Principal")),
            (Some(Listed::AllBut(_)), Effect::Allow) => {
                return Err(Malformed::new(
                    "Allow with NotPrincipal is not allowed.".to_owned(),
                ));
            }
            (Some(_), _) => {}
        }
        let resources = self.resources.entries();
        let places: Vec<Touched> = resources
            .iter()
            .map(|resource| Touched::of(resource, bucket).ok_or(Malformed::RESOURCE))
            .collect::<Result<_, _>>()?;
        for action in self.actions.entries() {
            let scope = Scope::of(action);
            if !scope.is_any() {
                return Err(Malformed::ACTION);
            }
            let (Listed::Only(_), Listed::Only(_)) = (&self.actions, &self.resources) else {
                continue;
            };
            let fits = |touched: &Touched| {
                (scope.objects && touched.objects) || (scope.buckets && touched.bucket)
            };
            if !places.iter().any(fits) {
                return Err(Malformed::new(
                    "Action does not apply to any resource(s) in statement".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// A key's policy may speak of other services, whose names are not judged here.
    fn check_for_key(&self) -> Result<(), Malformed> {
        if self.principals.is_some() {
            return Err(Malformed::new(
                "Policy document should not specify a principal.".to_owned(),
            ));
        }
        let none = |_: &str| Value::Absent;
        let s3 = Signs {
            wildcards: true,
            variables: false,
        };
        let of_s3 = Pattern::parse("s3:*", s3)?;
        for action in self.actions.entries() {
            let text = action.fixed_text();
            let is_s3 = of_s3.matches(&text, Case::Ignored, &none) == Ok(true);
            if is_s3 && !Scope::of(action).is_any() {
                return Err(Malformed::ACTION);
            }
        }
        Ok(())
    }

    fn names(&self, who: &Who<'_>) -> Named {
        match &self.principals {
            None => Named::Directly,
            Some(Listed::Only(principals)) => principals.name(who),
            Some(Listed::AllBut(principals)) => match principals.name(who) {
                Named::No => Named::Directly,
                Named::ByAccount | Named::Directly => Named::No,
            },
        }
    }

    /// Whether it is about the request; who asks is decided already.
    fn applies(&self, request: &Request<'_>) -> Truth {
        let matches =
            |pattern: &Pattern, text: &str, case| match pattern.matches(text, case, request.lookup)
            {
                Ok(matches) => matches.into(),
                Err(Unresolved::Absent) => Truth::No,
                Err(Unresolved::Unknown) => Truth::Unknown,
            };
        let action = self
            .actions
            .holds(|pattern| matches(pattern, request.action, Case::Ignored));
        if action == Truth::No {
            return Truth::No;
        }
        let resource = self
            .resources
            .holds(|pattern| matches(pattern, request.resource, Case::Sensitive));
        if resource == Truth::No {
            return Truth::No;
        }
        let conditions = self.conditions.iter();
        let conditions = Truth::all(conditions.map(|condition| condition.holds(request.lookup)));
        action.and(resource).and(conditions)
    }
}

impl Effect {
    fn parse(json: &Json) -> Result<Self, Malformed> {
        match json {
            Json::Text(text) if text == "Allow" => Ok(Self::Allow),
            Json::Text(text) if text == "Deny" => Ok(Self::Deny),
            Json::Text(text) => Err(Malformed::new(format!("Invalid effect: {text}"))),
            _ => Err(Malformed::SYNTAX),
        }
    }
}

impl Listed<Vec<Pattern>> {
    fn entries(&self) -> &[Pattern] {
        match self {
            Self::Only(entries) | Self::AllBut(entries) => entries,
        }
    }

    fn holds(&self, matches: impl Fn(&Pattern) -> Truth) -> Truth {
        match self {
            Self::Only(entries) => Truth::any(entries.iter().map(matches)),
            Self::AllBut(entries) => !Truth::any(entries.iter().map(matches)),
        }
    }
}

/// Sets what an element and its negation may say only once.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::SYNTAX),
    }
}

fn action_list(json: &Json) -> Result<Vec<Pattern>, Malformed> {
    let signs = Signs {
        wildcards: true,
        variables: false,
    };
    let texts = json.texts().filter(|texts| !texts.is_empty());
    let texts = texts.ok_or(Malformed::ACTION)?;
    texts
        .iter()
        .map(|text| match text == "*" || text.contains(':') {
            true => Pattern::parse(text, signs),
            false => Err(Malformed::ACTION),
        })
        .collect()
}

fn resource_list(json: &Json, variables: bool) -> Result<Vec<Pattern>, Malformed> {
    let signs = Signs {
        wildcards: true,
        variables,
    };
    let texts = json.texts().filter(|texts| !texts.is_empty());
    let texts = texts.ok_or(Malformed::RESOURCE)?;
    texts
        .iter()
        .map(|text| match text == "*" || text.starts_with("arn:") {
            true => Pattern::parse(text, signs),
            false => Err(Malformed::RESOURCE),
        })
        .collect()
}

/// What a resource pattern may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Touched {
    bucket: bool,
    objects: bool,
}

impl Touched {
    /// `None` for a resource that is not in the bucket.
    fn of(resource: &Pattern, bucket: &str) -> Option<Self> {
        let parts = resource.split(':', 6);
        let [arn, aws, s3, region, account, path] = parts.as_slice() else {
            return None;
        };
        let fixed = [
            (arn, "arn"),
            (aws, "aws"),
            (s3, "s3"),
            (region, ""),
            (account, ""),
        ];
        if !fixed
            .iter()
            .all(|(part, text)| part.could_match(text, Case::Sensitive))
        {
            return None;
        }
        let halves = path.split('/', 2);
        let name = halves.first()?;
        if !name.could_match(bucket, Case::Sensitive) {
            return None;
        }
        Some(Self {
            bucket: halves.len() == 1,
            // A wildcard in the bucket's part runs over the slash.
            objects: halves.len() == 2 || name.is_open(),
        })
    }
}

/// The ARN of a bucket, or of a key in it.
pub(super) fn resource(bucket: &str, key: Option<&str>) -> String {
    match key {
        Some(key) => format!("{RESOURCE}{bucket}/{key}"),
        None => format!("{RESOURCE}{bucket}"),
    }
}

#[cfg(test)]
mod tests;
