//! One page: what in it is a command, a file, a link, a place to link to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use sipwarden_cluster::workspace::repository;

/// A Markdown file.
#[derive(Clone, Debug)]
pub struct Page {
    /// From the root of the repository.
    pub path: PathBuf,
    pub blocks: Vec<Block>,
    pub links: Vec<Link>,
    pub pictures: Vec<Picture>,
    /// Code within a line, with its line.
    pub spans: Vec<(usize, String)>,
    /// What `#…` may name.
    pub anchors: BTreeSet<String>,
}

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// What stands behind the fence; nothing for an indented block.
    pub language: String,
    pub text: String,
    pub line: usize,
    pub mark: Mark,
}

/// What a comment right before a block says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    None,
    /// `file: NAME`: its text is that file for the commands that follow.
    File(String),
    /// `not run: WHY`
    NotRun(String),
    /// `last`: it is run when all other pages are done.
    Last,
}

/// Where somebody is sent.
#[derive(Clone, Debug)]
pub struct Link {
    pub to: String,
    pub line: usize,
}

/// An image, and what those are told who do not see it.
#[derive(Clone, Debug)]
pub struct Picture {
    pub file: String,
    pub alternative: String,
    pub line: usize,
}

impl Page {
    /// Reads the page at this path of the repository.
    pub fn read(path: &Path) -> Page {
        let text = fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        Page::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Page {
        let mut page = Page {
            path: path.to_owned(),
            blocks: Vec::new(),
            links: Vec::new(),
            pictures: Vec::new(),
            spans: Vec::new(),
            anchors: BTreeSet::new(),
        };
        let mut reader = Reader::default();
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = text[..range.start].matches('\n').count() + 1;
            reader.take(&mut page, event, line);
        }
        page
    }

    /// `PATH:LINE`, for failures.
    pub fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// What the parser is within.
#[derive(Default)]
struct Reader {
    block: Option<Block>,
    heading: Option<String>,
    picture: Option<Picture>,
    /// The last comment, until something else comes.
    comment: Option<String>,
}

impl Reader {
    fn take(&mut self, page: &mut Page, event: Event, line: usize) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                let mark = self.comment.take().map_or(Mark::None, |comment| mark(&comment, &page.place(line)));
                self.block = Some(Block { language, text: String::new(), line, mark });
            }
            Event::End(TagEnd::CodeBlock) => page.blocks.extend(self.block.take()),
            Event::Start(Tag::Heading { .. }) => self.heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => page.anchors.extend(self.heading.take().as_deref().map(slug)),
            Event::Start(Tag::Link { dest_url, .. }) => page.links.push(Link { to: dest_url.to_string(), line }),
            Event::Start(Tag::Image { dest_url, .. }) => {
                self.picture = Some(Picture { file: dest_url.to_string(), alternative: String::new(), line });
            }
            Event::End(TagEnd::Image) => page.pictures.extend(self.picture.take()),
            Event::Html(html) | Event::InlineHtml(html) => {
                page.anchors.extend(
                    html.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
                );
                if let Some(comment) = html.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->")) {
                    self.comment = Some(comment.trim().to_owned());
                }
            }
            Event::Code(code) => {
                self.text(&code);
                page.spans.push((line, code.to_string()));
            }
            Event::Text(text) => self.text(&text),
            Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) | Event::SoftBreak => {}
            Event::Start(_) => self.comment = None,
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(block) = &mut self.block {
            block.text += text;
        }
        if let Some(heading) = &mut self.heading {
            *heading += text;
        }
        if let Some(picture) = &mut self.picture {
            picture.alternative += text;
        }
    }
}

/// Other comments are nobody's business.
fn mark(comment: &str, place: &str) -> Mark {
    match comment.split_once(':') {
        Some(("file", name)) => Mark::File(name.trim().to_owned()),
        Some(("not run", why)) => Mark::NotRun(why.trim().to_owned()),
        None if comment == "last" => Mark::Last,
        _ => panic!("{place}: nobody knows the mark {comment:?}"),
    }
}

/// What a heading is linked by, as GitHub does it.
pub fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# One, *two* & `three`\n\nSee [here](a.md#b) and `kubectl get pods`.\n\n<a id=\"own\"></a>\n\
                        <!-- file: a.yaml -->\n```yaml\na: 1\n```\n\n```sh\nls\n```\n\n    indented\n\n![alt](p.svg)\n\n\
                        <!-- not run: it takes days -->\n```sh\nsleep\n```\n";

    #[test]
    fn a_page_is_taken_apart() {
        let page = Page::parse(Path::new("a.md"), TEXT);
        let blocks: Vec<_> = page.blocks.iter().map(|block| (block.language.as_str(), block.text.as_str())).collect();
        assert_eq!(blocks, [("yaml", "a: 1\n"), ("sh", "ls\n"), ("", "indented\n"), ("sh", "sleep\n")]);
        let marks: Vec<_> = page.blocks.iter().map(|block| block.mark.clone()).collect();
        let not_run = Mark::NotRun("it takes days".to_owned());
        assert_eq!(marks, [Mark::File("a.yaml".to_owned()), Mark::None, Mark::None, not_run]);
        assert_eq!((page.links[0].to.as_str(), page.links[0].line, page.blocks[1].line), ("a.md#b", 3, 11));
        assert_eq!(page.spans, [(1, "three".to_owned()), (3, "kubectl get pods".to_owned())]);
        assert_eq!(page.anchors.into_iter().collect::<Vec<_>>(), ["one-two--three", "own"]);
        assert_eq!((page.pictures[0].file.as_str(), page.pictures[0].alternative.as_str()), ("p.svg", "alt"));
    }
}
