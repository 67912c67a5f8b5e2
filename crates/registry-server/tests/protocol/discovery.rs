//! Lists of tags and repositories.

use serde_json::json;

use crate::bench::Bench;

#[tokio::test]
async fn tags_and_repositories_are_listed_in_pages() {
    let bench = Bench::new().await;
    for name in ["b/x", "a"] {
        for tag in ["2", "1", "B", "a"] {
            bench.push_image(name, tag, "content").await;
        }
    }
    let answer = bench.get("/v2/a/tags/list").await;
    assert_eq!(answer.json(), json!({"name": "a", "tags": ["1", "2", "B", "a"]}));
    let answer = bench.get("/v2/b/x/tags/list?n=3").await;
    assert_eq!(answer.json()["tags"], json!(["1", "2", "B"]));
    assert_eq!(answer.header("link"), "</v2/b/x/tags/list?n=3&last=B>; rel=\"next\"");
    let answer = bench.get("/v2/b/x/tags/list?n=3&last=B").await;
    assert_eq!(answer.json()["tags"], json!(["a"]));
    assert!(!answer.headers.contains_key("link"));
    assert_eq!(bench.get("/v2/a/tags/list?n=0").await.json()["tags"], json!([]));
    assert_eq!(bench.get("/v2/_catalog").await.json(), json!({"repositories": ["a", "b/x"]}));
    let answer = bench.get("/v2/_catalog?n=1").await;
    assert_eq!(answer.json(), json!({"repositories": ["a"]}));
    assert_eq!(answer.header("link"), "</v2/_catalog?n=1&last=a>; rel=\"next\"");
    let next = bench.get("/v2/_catalog?n=1&last=a").await;
    assert_eq!(next.json(), json!({"repositories": ["b/x"]}));
}

#[tokio::test]
async fn an_unknown_repository_and_a_wrong_number_are_refused() {
    let bench = Bench::new().await;
    assert_eq!(bench.get("/v2/a/tags/list").await.refusal(), (404, "NAME_UNKNOWN".to_owned()));
    let refused = (400, "PAGINATION_NUMBER_INVALID".to_owned());
    assert_eq!(bench.get("/v2/a/tags/list?n=-1").await.refusal(), refused);
    assert_eq!(bench.get("/v2/_catalog").await.json(), json!({"repositories": []}));
}
