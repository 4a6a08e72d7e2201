//! DeleteObject and DeleteObjects.

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use shardgate_catalog::DeleteCondition;

use super::access::allow_object;
use super::conditions::{TagCondition, parse_etag};
use super::encode::xml_text;
use super::error::s3_error_of;
use super::names::check_key;
use super::service::{Operations, check_version};
use crate::auth::Action;

/// Most keys of one DeleteObjects.
const MAX_KEYS: usize = 1000;

/// Deletes an object; one that is not there is deleted already.
pub(crate) async fn delete_object(
    operations: &Operations,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let condition = condition_of(&request)?;
    refuse_bypass(&request.headers)?;
    let input = request.input;
    check_key(&input.key)?;
    check_version(input.version_id.as_deref())?;
    if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
        return Err(s3_error!(
            NotImplemented,
            "a delete takes If-Match as its only condition"
        ));
    }
    let bucket = operations.bucket(&input.bucket).await?;
    let deleted = operations
        .objects
        .delete_object(&bucket, &input.key, condition)
        .await;
    deleted.map_err(s3_error_of)?;
    Ok(S3Response::new(DeleteObjectOutput::default()))
}

/// Who bypasses a lock believes that there is one.
fn refuse_bypass(headers: &HeaderMap) -> S3Result<()> {
    let said = headers.get("x-amz-bypass-governance-retention");
    match said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(b"true")) {
        false => Ok(()),
        true => Err(s3_error!(
            InvalidArgument,
            "x-amz-bypass-governance-retention is only applicable to Object Lock enabled buckets"
        )),
    }
}

fn condition_of(request: &S3Request<DeleteObjectInput>) -> S3Result<DeleteCondition> {
    let Some(value) = request.headers.get("if-match") else {
        return Ok(DeleteCondition::None);
    };
    let tags = TagCondition::parse(value.to_str().unwrap_or_default());
    if tags == TagCondition::Any {
        return Ok(DeleteCondition::IfMatchAny);
    }
    tags.single()
        .and_then(parse_etag)
        .map(DeleteCondition::IfMatch)
        .ok_or_else(|| S3Error::new(S3ErrorCode::PreconditionFailed))
}

/// Why one key of many was not deleted.
fn failed(key: &str, version: Option<String>, error: &S3Error) -> Error {
    Error {
        code: Some(error.code().as_str().to_owned()),
        key: Some(xml_text(key)),
        message: error.message().map(str::to_owned),
        version_id: version,
    }
}

/// Deletes up to 1,000 objects; each is authorised by itself, and one that
/// fails fails no other.
pub(crate) async fn delete_objects(
    operations: &Operations,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    refuse_bypass(&request.headers)?;
    let asked = &request.input.delete.objects;
    if asked.is_empty() || asked.len() > MAX_KEYS {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    let bucket = operations.bucket(&request.input.bucket).await?;
    let quiet = request.input.delete.quiet.unwrap_or(false);
    let mut errors = Vec::new();
    let mut keys = Vec::with_capacity(asked.len());
    for object in asked {
        match may_delete(&request, object) {
            Ok(()) => keys.push(object.key.clone()),
            Err(error) => errors.push(failed(&object.key, object.version_id.clone(), &error)),
        }
    }
    let outcomes = operations
        .objects
        .delete_objects(&bucket, keys.clone())
        .await;
    let outcomes = outcomes.map_err(s3_error_of)?;
    let mut deleted = Vec::new();
    for (key, outcome) in keys.iter().zip(outcomes) {
        match outcome {
            Ok(()) if quiet => {}
            Ok(()) => deleted.push(DeletedObject {
                key: Some(xml_text(key)),
                ..DeletedObject::default()
            }),
            Err(error) => errors.push(failed(key, None, &s3_error_of(error))),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: Some(deleted),
        errors: Some(errors),
        request_charged: None,
    }))
}

fn may_delete(request: &S3Request<DeleteObjectsInput>, object: &ObjectIdentifier) -> S3Result<()> {
    check_key(&object.key)?;
    let action = match object.version_id {
        Some(_) => Action::DeleteObjectVersion,
        None => Action::DeleteObject,
    };
    allow_object(request, action, &request.input.bucket, &object.key)?;
    check_version(object.version_id.as_deref())?;
    if object.e_tag.is_some() || object.size.is_some() || object.last_modified_time.is_some() {
        return Err(s3_error!(
            NotImplemented,
            "conditions on the keys of DeleteObjects are not supported"
        ));
    }
    Ok(())
}
