//! Who is built on whom: circles are found, and parents put before their children.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::model::Image;

/// Puts parents before their children, and images with equally long lines of parents in the order of their names.
pub(crate) fn order(images: Vec<Image>, diagnostics: &mut Diagnostics) -> Vec<Image> {
    let depths = depths(&images, diagnostics);
    let mut ordered: Vec<(Option<usize>, Image)> = depths.into_iter().zip(images).collect();
    ordered.sort_by(|(left_depth, left), (right_depth, right)| {
        (left_depth, left.name.as_str()).cmp(&(right_depth, right.name.as_str()))
    });
    ordered.into_iter().map(|(_, image)| image).collect()
}

/// What is known about an image while lines of parents are followed.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Unseen,
    /// On the line that is being followed.
    Open,
    /// How many parents are above; `None` if the line ends in a circle or in an image that is not there.
    Done(Option<usize>),
}

fn depths(images: &[Image], diagnostics: &mut Diagnostics) -> Vec<Option<usize>> {
    let index: BTreeMap<&str, usize> = images.iter().enumerate().map(|(at, image)| (image.name.as_str(), at)).collect();
    let mut marks = vec![Mark::Unseen; images.len()];
    // By name, so that a circle is always told from the same image on.
    for &start in index.values() {
        follow(start, images, &index, &mut marks, diagnostics);
    }
    marks.into_iter().map(|mark| if let Mark::Done(depth) = mark { depth } else { None }).collect()
}

/// An image on the line that is followed.
struct OnLine {
    at: usize,
    /// The parents that are still to be looked at, the next one last.
    parents: Vec<Option<usize>>,
    /// What is known of its depth so far.
    depth: Option<usize>,
}

impl OnLine {
    fn new(at: usize, images: &[Image], index: &BTreeMap<&str, usize>) -> Self {
        let mut parents: Vec<Option<usize>> = images[at].parents().map(|name| index.get(name).copied()).collect();
        parents.reverse();
        Self { at, parents, depth: Some(0) }
    }

    /// Takes the depth of a parent into account.
    fn below(&mut self, parent: Option<usize>) {
        self.depth = self.depth.zip(parent).map(|(own, parent)| own.max(parent + 1));
    }
}

/// Follows lines of parents up to what is known, then marks them on the way back. No recursion: lines may be long.
fn follow(
    start: usize,
    images: &[Image],
    index: &BTreeMap<&str, usize>,
    marks: &mut [Mark],
    diagnostics: &mut Diagnostics,
) {
    if marks[start] != Mark::Unseen {
        return;
    }
    marks[start] = Mark::Open;
    let mut line = vec![OnLine::new(start, images, index)];
    while let Some(top) = line.last_mut() {
        let Some(parent) = top.parents.pop() else {
            let (at, depth) = (top.at, top.depth);
            marks[at] = Mark::Done(depth);
            line.pop();
            if let Some(child) = line.last_mut() {
                child.below(depth);
            }
            continue;
        };
        match parent.map(|parent| (parent, marks[parent])) {
            // An image that is not there was told of before.
            None => top.below(None),
            Some((_, Mark::Done(depth))) => top.below(depth),
            Some((parent, Mark::Open)) => {
                top.below(None);
                let places: Vec<usize> = line.iter().map(|on| on.at).collect();
                report_circle(&places, parent, images, diagnostics);
            }
            Some((parent, Mark::Unseen)) => {
                marks[parent] = Mark::Open;
                line.push(OnLine::new(parent, images, index));
            }
        }
    }
}

fn report_circle(line: &[usize], back_to: usize, images: &[Image], diagnostics: &mut Diagnostics) {
    let begin = line.iter().position(|&at| at == back_to).unwrap_or(0);
    let mut names: Vec<&str> = line[begin..].iter().map(|&at| images[at].name.as_str()).collect();
    names.push(images[back_to].name.as_str());
    let image = &images[back_to];
    let title = format!("{} is its own ancestor", quoted(image.name.as_str()));
    diagnostics.push(
        Diagnostic::new(image.from.span.clone(), title)
            .label(format!("the parents go in a circle: {}", shortened(&names)))
            .help("give one of them another parent"),
    );
}

/// A circle of two hundred is told by its beginning and its end.
fn shortened(names: &[&str]) -> String {
    const MOST: usize = 12;
    if names.len() <= MOST {
        return names.join(" → ");
    }
    let tail = names.len() - MOST / 2;
    format!("{} → … → {}", names[..MOST / 2].join(" → "), names[tail..].join(" → "))
}
