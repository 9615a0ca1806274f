"""The OpenAPI document that the server serves."""

from openapi_spec_validator import OpenAPIV31SpecValidator

from support.native import V0, V1


def operations(document):
    return [
        (path, operation)
        for path, methods in document["paths"].items()
        for operation in methods.values()
    ]


def test_it_is_one(openapi):
    problems = list(OpenAPIV31SpecValidator(openapi).iter_errors())
    assert openapi["openapi"].startswith("3.1.") and not problems, problems


def test_answers_have_the_shape_that_is_described(openapi, client):
    names = [operation["operationId"] for _, operation in operations(openapi)]
    assert len(names) == len(set(names)) == 22
    for path, operation in operations(openapi):
        for status, answer in operation["responses"].items():
            content = answer.get("content", {})
            if path.startswith(V0) and "application/json" in content:
                schema = content["application/json"]["schema"]
                assert list(schema["properties"]) == ["code", "data", "message"], (path, status)
            if path.startswith(V1) and int(status) >= 400:
                assert list(content) == ["application/problem+json"], (path, status)
        if {"link": []} in operation.get("security", []):
            known = {parameter["name"] for parameter in operation["parameters"]}
            assert {"date", "expire", "signature"} <= known, path
    proxy = openapi["paths"][V0 + "/proxy"]["get"]["responses"]["200"]["content"]
    assert list(proxy) == ["application/json"]
    for route in ("/upload", "/upload/multi"):
        body = openapi["paths"][V0 + route]["put"]["requestBody"]["content"]["multipart/form-data"]
        assert body["schema"]["required"] == ["file"]
    shapes = openapi["components"]["schemas"]
    uid = client.upload("a.txt", b"x")
    made = client.send("GET", f"{V1}/objects/{uid}", headers=client.basic()).json
    assert set(made) == set(shapes["Object"]["properties"])
    assert set(shapes["ResumedBySha256"]["properties"]) == {"sha256", "size", "uid"}
    assert set(shapes["Resumed"]["properties"]) == {"md5", "uid"}
