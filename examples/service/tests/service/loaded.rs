//! The load generator and the page.

use crate::running::{Folder, Server, program};

#[test]
fn the_load_generator_measures_a_service() {
    let folder = Folder::new("load");
    let server = Server::start(&folder.path("store.redb"), &[]);
    let (address, plot) = (server.address.to_string(), folder.path("plot.svg"));
    let shown = plot.display().to_string();
    let steps = ["--rates", "20,60", "--seconds", "1", "--clients", "3", "--events", "5", "--plot", &shown];
    let output = program(&[&["load", "--address", &address], &steps[..]].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for words in ["3 clients", "p99 ms", "asked/s"] {
        assert!(text.contains(words), "no {words} in\n{text}");
    }
    assert!(std::fs::read_to_string(plot).unwrap().contains("Latency of POST /rank"));
    assert_eq!(server.metric("service_requests_total{route=\"/events\",status=\"200\"}"), 16.0);
    assert_eq!(server.metric("service_requests_total{route=\"/rank\",status=\"200\"}"), 64.0);
    server.stop();
}

/// One file, without scripts from elsewhere, that asks only for what there is.
#[test]
fn the_page_is_self_contained() {
    let folder = Folder::new("page");
    let server = Server::start(&folder.path("store.redb"), &[]);
    let mut client = server.client();
    let page = client.get("/").unwrap();
    assert_eq!(page.status, 200);
    assert!(page.head.iter().any(|line| line.starts_with("content-type: text/html")));
    for outside in ["http:", "https:", "src=", "<link", "@import"] {
        assert!(!page.body.contains(outside), "{outside}");
    }
    for path in ["/users", "/users/", "/rank", "/metrics"] {
        assert!(page.body.contains(&format!("\"{path}\"")), "{path}");
    }
    let users = client.get("/users").unwrap().body;
    assert!(users.starts_with(r#"[{"events":"#), "{users}");
    let user: serde_json::Value = serde_json::from_str(&client.get("/users/1").unwrap().body).unwrap();
    assert!(user["newest"][0]["title"].as_str().unwrap().starts_with("item "));
    assert!(user["candidates"][99]["item"].is_u64());
    let unknown: serde_json::Value = serde_json::from_str(&client.get("/users/0").unwrap().body).unwrap();
    assert_eq!((unknown["events"].as_u64(), unknown["candidates"][0]["item"].is_u64()), (Some(0), true));
    server.stop();
}
