//! The language as tables of cases: what is refused, what applies, what is public.

use super::*;

const BUCKET: &str = "b";

fn parse(text: &str) -> Result<Policy, Malformed> {
    Policy::parse(text, Place::Bucket(BUCKET))
}

/// A bucket's policy of one statement.
fn statement(fields: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{{{fields}}}]}}"#)
}

/// One that allows everybody to get any key, `more` apart.
fn open(more: &str) -> String {
    statement(&format!(
        r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"{more}"#
    ))
}

fn judge_with(
    policy: &str,
    action: &str,
    resource: &str,
    lookup: &dyn Fn(&str) -> Value,
) -> Judgement {
    let request = Request {
        who: Who::Anonymous,
        action,
        resource,
        lookup,
    };
    parse(policy).unwrap().judge(&request)
}

fn judge(policy: &str, action: &str, resource: &str) -> Judgement {
    judge_with(policy, action, resource, &|_| Value::Absent)
}

#[test]
fn malformed_documents_are_refused_with_the_text_of_aws() {
    let syntax = "Policy has invalid syntax";
    for (document, text) in [
        (
            "",
            "Policies must be valid JSON and the first byte must be '{'",
        ),
        (
            " {}",
            "Policies must be valid JSON and the first byte must be '{'",
        ),
        (
            "[]",
            "Policies must be valid JSON and the first byte must be '{'",
        ),
        ("{", "This policy contains invalid Json"),
        (
            r#"{"Statement":[],"Statement":[]}"#,
            "This policy contains invalid Json",
        ),
        ("{}", "Missing required field Statement"),
        (r#"{"Statement":[]}"#, "Missing required field Statement"),
        (r#"{"Statement":"x"}"#, syntax),
        (
            r#"{"Version":"2020-01-01","Statement":[]}"#,
            "The policy must contain a valid version string",
        ),
        (r#"{"Version":1,"Statement":[]}"#, syntax),
        (r#"{"Frob":1,"Statement":[]}"#, "Unknown field Frob"),
        (
            &statement(r#""Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b""#),
            "Missing required field Effect",
        ),
        (
            &statement(
                r#""Effect":"allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b""#,
            ),
            "Invalid effect: allow",
        ),
        (
            &statement(r#""Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::b""#),
            "Missing required field Principal",
        ),
        (
            &statement(r#""Effect":"Allow","Principal":"*","Resource":"arn:aws:s3:::b""#),
            "Missing required field Action",
        ),
        (
            &statement(r#""Effect":"Allow","Principal":"*","Action":"s3:*""#),
            "Missing required field Resource",
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"bob","Action":"s3:*","Resource":"arn:aws:s3:::b""#,
            ),
            "Invalid principal in policy",
        ),
        (
            &statement(
                r#""Effect":"Allow","NotPrincipal":{"AWS":"x"},"Action":"s3:*","Resource":"arn:aws:s3:::b""#,
            ),
            "Allow with NotPrincipal is not allowed.",
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"*","NotPrincipal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b""#,
            ),
            syntax,
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"*","Action":"s3:*","NotAction":"s3:*","Resource":"arn:aws:s3:::b""#,
            ),
            syntax,
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"*","Action":"s3:Frob","Resource":"arn:aws:s3:::b""#,
            ),
            "Policy has invalid action",
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"*","Action":"iam:GetUser","Resource":"arn:aws:s3:::b""#,
            ),
            "Policy has invalid action",
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"*","Action":[],"Resource":"arn:aws:s3:::b""#,
            ),
            "Policy has invalid action",
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::other/*""#,
            ),
            "Policy has invalid resource",
        ),
        (
            &statement(r#""Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*""#),
            "Policy has invalid resource",
        ),
        (
            &statement(r#""Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"b/*""#),
            "Policy has invalid resource",
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b""#,
            ),
            "Action does not apply to any resource(s) in statement",
        ),
        (
            &statement(
                r#""Effect":"Allow","Principal":"*","Action":"s3:ListBucket","Resource":"arn:aws:s3:::b/*""#,
            ),
            "Action does not apply to any resource(s) in statement",
        ),
        (&open(r#","Frob":1"#), "Unknown field Frob"),
        (
            &open(r#","Condition":{"StringIs":{"aws:UserAgent":"a"}}"#),
            "Invalid Condition type : StringIs",
        ),
        (
            &open(r#","Condition":{"StringEquals":{"s3:frob":"a"}}"#),
            "Policy has an invalid condition key",
        ),
        (
            &open(r#","Condition":{"IpAddress":{"aws:SourceIp":"x"}}"#),
            "Policy has an invalid condition value",
        ),
        (&open(r#","Condition":[]"#), syntax),
        (&open(r#","Sid":1"#), syntax),
    ] {
        let refused = parse(document).err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some(text), "{document}");
    }
    let twice = r#"{"Effect":"Allow","Action":"s3:*","Resource":"*","Sid":"a"}"#;
    let refused = Policy::parse(&format!(r#"{{"Statement":[{twice},{twice}]}}"#), Place::Key);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Statement IDs (SID) in a single policy must be unique."
    );
    let long = open(&format!(r#","Sid":"{}""#, "x".repeat(POLICY_MAX_BYTES)));
    assert!(
        parse(&long)
            .unwrap_err()
            .to_string()
            .contains("20480 bytes")
    );
}

#[test]
fn well_formed_documents_are_read() {
    for document in [
        open(""),
        open(r#","Sid":"one","Condition":{"Bool":{"aws:SecureTransport":false}}"#),
        r#"{"Id":"x","Statement":{"Effect":"Deny","NotPrincipal":{"AWS":["x","y"]},"NotAction":"s3:Get*","NotResource":["arn:aws:s3:::b/a","arn:aws:s3:::b/${aws:username}"]}}"#.to_owned(),
        statement(r#""Effect":"Allow","Principal":{"AWS":"*"},"Action":["S3:getobject","s3:ListBucket"],"Resource":["arn:aws:s3:::b","arn:aws:s3:::b/*"]"#),
        statement(r#""Effect":"Allow","Principal":"*","Action":"*","Resource":"arn:aws:s3:::*""#),
        statement(r#""Effect":"Allow","Principal":"*","Action":"s3:ListBucket","Resource":["arn:aws:s3:::*","arn:aws:s3:::*/*"]"#),
    ] {
        parse(&document).unwrap();
    }
}

#[test]
fn a_keys_policy_names_nobody_and_may_speak_of_other_services() {
    let key = |text: &str| Policy::parse(text, Place::Key);
    assert!(key(&open("")).is_err());
    let fine = statement(
        r#""Effect":"Allow","Action":["iam:*","s3:Get*","*"],"Resource":["*","arn:aws:iam::1:user/x"]"#,
    );
    key(&fine).unwrap();
    let typo = statement(r#""Effect":"Allow","Action":"s3:Frob","Resource":"*""#);
    assert_eq!(key(&typo), Err(Malformed::ACTION));
}

#[test]
fn statements_are_about_actions_and_resources() {
    for (fields, action, resource, applies) in [
        (
            r#""Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""Action":"s3:GETOBJECT","Resource":"arn:aws:s3:::b/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""Action":"s3:Get*","Resource":"arn:aws:s3:::b/*""#,
            "s3:GetObjectTagging",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""Action":"s3:Get*","Resource":"arn:aws:s3:::b/*""#,
            "s3:PutObject",
            "arn:aws:s3:::b/k",
            false,
        ),
        (
            r#""Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#,
            "s3:GetObjectTagging",
            "arn:aws:s3:::b/k",
            false,
        ),
        (
            r#""Action":"*","Resource":"arn:aws:s3:::b/*""#,
            "s3:PutObject",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""NotAction":"s3:Get*","Resource":"arn:aws:s3:::b/*""#,
            "s3:PutObject",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""NotAction":"s3:Get*","Resource":"arn:aws:s3:::b/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            false,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b/a/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/a/b/c",
            true,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b/a/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/A/b",
            false,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b/a?c""#,
            "s3:GetObject",
            "arn:aws:s3:::b/abc",
            true,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b/*""#,
            "s3:ListBucket",
            "arn:aws:s3:::b",
            false,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b""#,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            false,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            true,
        ),
        (
            r#""Action":"s3:*","NotResource":"arn:aws:s3:::b/a/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/x",
            true,
        ),
        (
            r#""Action":"s3:*","NotResource":"arn:aws:s3:::b/a/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/a/x",
            false,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b/${aws:username}/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/bob/x",
            true,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b/${aws:username}/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b/eve/x",
            false,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b/${aws:Referer}/*""#,
            "s3:GetObject",
            "arn:aws:s3:::b//x",
            false,
        ),
    ] {
        let lookup = |key: &str| match key {
            "aws:username" => Value::Is(vec!["bob".to_owned()]),
            _ => Value::Absent,
        };
        let policy = statement(&format!(r#""Effect":"Allow","Principal":"*",{fields}"#));
        let judged = judge_with(&policy, action, resource, &lookup);
        assert_eq!(
            judged.allowed,
            applies.into(),
            "{fields} {action} {resource}"
        );
    }
}

#[test]
fn an_old_document_has_no_variables() {
    let policy = r#"{"Version":"2008-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/${aws:username}"}}"#;
    let literal = judge(policy, "s3:GetObject", "arn:aws:s3:::b/${aws:username}");
    assert_eq!(literal.allowed, Truth::Yes);
}

#[test]
fn denials_and_permissions_are_told_apart() {
    let policy = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"},
        {"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b/secret/*"}]}"#;
    let open = judge(policy, "s3:GetObject", "arn:aws:s3:::b/k");
    assert_eq!((open.allowed, open.denied), (Truth::Yes, Truth::No));
    let secret = judge(policy, "s3:GetObject", "arn:aws:s3:::b/secret/k");
    assert_eq!((secret.allowed, secret.denied), (Truth::Yes, Truth::Yes));
    assert_eq!(
        judge(policy, "s3:PutObject", "arn:aws:s3:::b/k"),
        Judgement::SILENT
    );
}

#[test]
fn what_depends_on_the_object_is_unknown_only_where_it_matters() {
    let lookup = |key: &str| match key {
        "s3:ExistingObjectTag/a" => Value::Unknown,
        _ => Value::Absent,
    };
    let tagged = open(r#","Condition":{"StringEquals":{"s3:ExistingObjectTag/a":"1"}}"#);
    let ask = |policy: &str, action: &str| judge_with(policy, action, "arn:aws:s3:::b/k", &lookup);
    assert_eq!(ask(&tagged, "s3:GetObject").allowed, Truth::Unknown);
    assert_eq!(ask(&tagged, "s3:PutObject").allowed, Truth::No);
    let both =
        open(r#","Condition":{"StringEquals":{"s3:ExistingObjectTag/a":"1","aws:UserAgent":"x"}}"#);
    assert_eq!(ask(&both, "s3:GetObject").allowed, Truth::No);
}

#[test]
fn public_is_what_is_not_narrowed_to_somebody() {
    let with = |principal: &str, condition: &str| {
        statement(&format!(
            r#""Effect":"Allow","Principal":{principal},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"{condition}"#
        ))
    };
    for (principal, condition, public) in [
        (r#""*""#, "", true),
        (r#"{"AWS":"*"}"#, "", true),
        (r#"{"AWS":["acme","*"]}"#, "", true),
        (r#"{"AWS":"acme"}"#, "", false),
        (r#"{"CanonicalUser":"00ff"}"#, "", false),
        (r#"{"Service":"logging.s3.amazonaws.com"}"#, "", false),
        (
            r#""*""#,
            r#","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/32"}}"#,
            false,
        ),
        (
            r#""*""#,
            r#","Condition":{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#,
            true,
        ),
        (
            r#""*""#,
            r#","Condition":{"StringEquals":{"aws:SourceVpc":"vpc-1"}}"#,
            false,
        ),
        (
            r#""*""#,
            r#","Condition":{"StringLike":{"aws:SourceVpc":"vpc-*"}}"#,
            true,
        ),
        (
            r#""*""#,
            r#","Condition":{"StringEquals":{"aws:Referer":"x"}}"#,
            true,
        ),
        (
            r#""*""#,
            r#","Condition":{"Bool":{"aws:SecureTransport":"true"}}"#,
            true,
        ),
    ] {
        let policy = parse(&with(principal, condition)).unwrap();
        assert_eq!(policy.is_public(), public, "{principal} {condition}");
    }
    let denied = r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b"}}"#;
    assert!(!parse(denied).unwrap().is_public());
}

#[test]
fn the_tenants_of_a_policy_are_known() {
    let policy = statement(
        r#""Effect":"Allow","Principal":{"AWS":["acme","arn:aws:iam::beta:user/k","*"],"Service":"s"},"Action":"s3:*","Resource":"arn:aws:s3:::b""#,
    );
    let policy = parse(&policy).unwrap();
    assert_eq!(policy.accounts().collect::<Vec<_>>(), ["acme", "beta"]);
}
