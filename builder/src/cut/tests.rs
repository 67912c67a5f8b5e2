//! Families made up by chance and by hand, and what must hold of every cut of them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// An image with names of its own, which the borrowed input of a cut is made of.
#[derive(Clone, Debug)]
struct Made {
    name: String,
    parent: Option<usize>,
    steps: Vec<Vec<String>>,
    others: usize,
    budget: Budget,
    remembered: Vec<Vec<String>>,
    squashed: bool,
}

/// All layers besides those of packages lie above the first step.
fn others(image: &Made) -> Vec<usize> {
    let mut layers = vec![0; image.steps.len() + 1];
    layers[usize::from(!image.steps.is_empty())] = image.others;
    layers
}

fn made(name: &str, parent: Option<usize>, steps: &[&[&str]]) -> Made {
    let steps = steps.iter().map(|step| step.iter().map(|name| (*name).to_owned()).collect()).collect();
    let (name, remembered) = (name.to_owned(), Vec::new());
    Made { name, parent, steps, others: 0, budget: Budget::Usual, remembered, squashed: false }
}

fn size(name: &str) -> u64 {
    name.bytes().map(|byte| u64::from(byte) % 17 + 1).product::<u64>() % 1000 + 1
}

fn input(made: &[Made]) -> Vec<Image<'_>> {
    let piece = |name: &'_ String| (name.clone(), Digest::of(name.as_bytes()), size(name));
    made.iter()
        .map(|image| Image {
            name: &image.name,
            parent: image.parent,
            steps: image
                .steps
                .iter()
                .map(|step| {
                    step.iter().map(|name| Piece { name, digest: piece(name).1, size: piece(name).2 }).collect()
                })
                .collect(),
            fixed_layers: 0,
            other_layers: others(image),
            budget: image.budget,
            remembered: Remembered {
                groups: image.remembered.iter().map(|group| group.iter().map(String::as_str).collect()).collect(),
                squashed: image.squashed,
            },
        })
        .collect()
}

/// For each image, the names in the groups of each of its steps.
type Named = BTreeMap<String, Vec<Vec<Vec<String>>>>;

fn named(made: &[Made], cut: &Cut) -> Named {
    let names =
        |image: &Made, step: usize, group: &Group| group.iter().map(|at| image.steps[step][*at].clone()).collect();
    let steps = |image: &Made, steps: &[Vec<Group>]| {
        steps
            .iter()
            .enumerate()
            .map(|(step, groups)| groups.iter().map(|group| names(image, step, group)).collect())
            .collect()
    };
    made.iter().zip(&cut.images).map(|(image, groups)| (image.name.clone(), steps(image, groups))).collect()
}

fn cut_of(made: &[Made]) -> Named {
    named(made, &cut(&input(made)).unwrap())
}

/// Every image as the next build finds it.
fn remember(made: &mut [Made], groups: &Named) {
    for place in 0..made.len() {
        let mut all = made[place].parent.map(|parent| made[parent].remembered.clone()).unwrap_or_default();
        all.extend(groups[&made[place].name].iter().flatten().cloned());
        made[place].remembered = all;
    }
}

fn stored(groups: &Named) -> BTreeSet<&Vec<String>> {
    groups.values().flatten().flatten().collect()
}

fn bytes(groups: &Named) -> u64 {
    stored(groups).into_iter().flatten().map(|name| size(name)).sum()
}

/// A forest of images, each with packages that its ancestors do not have.
fn families() -> impl Strategy<Value = Vec<Made>> {
    let step = || vec(0..30_usize, 0..12);
    let image = (any::<Option<Index>>(), vec(step(), 0..3), 0..3_usize);
    vec(image, 1..9).prop_map(|images| {
        let mut all: Vec<Made> = Vec::new();
        let mut has: Vec<BTreeSet<String>> = Vec::new();
        for (place, (parent, steps, others)) in images.into_iter().enumerate() {
            let parent = parent.filter(|_| place > 0).map(|parent| parent.index(place));
            let mut present = parent.map(|parent| has[parent].clone()).unwrap_or_default();
            let steps = steps.into_iter().map(|step| {
                step.into_iter()
                    .map(|piece| format!("p{piece:02}"))
                    .filter(|name| present.insert(name.clone()))
                    .collect()
            });
            let steps = steps.collect();
            // Names that are not in the order of places.
            let name = format!("image-{}", (place * 5) % 9);
            all.push(Made {
                name,
                parent,
                steps,
                others,
                budget: Budget::Usual,
                remembered: Vec::new(),
                squashed: false,
            });
            has.push(present);
        }
        all
    })
}

/// How many layers each image has if its packages are in these groups; without groups, if those of each step are one.
fn layers(made: &[Made], groups: Option<&Named>, squashed: &[bool]) -> Vec<usize> {
    let mut counts: Vec<usize> = Vec::new();
    for (place, image) in made.iter().enumerate() {
        let steps: Vec<bool> = image.steps.iter().map(|step| !step.is_empty()).collect();
        let own = match groups {
            Some(groups) => groups[&image.name].iter().map(Vec::len).sum::<usize>(),
            None => steps.iter().filter(|lays| **lays).count(),
        };
        let below = image.parent.map_or(0, |parent| counts[parent]);
        counts.push(below + own + own_layers(&others(image), &steps, squashed[place]));
    }
    counts
}

/// The least number of layers that each image can have.
fn least(made: &[Made]) -> Vec<usize> {
    layers(made, None, &vec![true; made.len()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_step_lays_exactly_its_packages_each_once(made in families(), extra in 0..12_usize) {
        let mut made = made;
        for (place, least) in least(&made).into_iter().enumerate() {
            made[place].budget = Budget::Asked(least + extra);
        }
        let cut = cut(&input(&made)).unwrap();
        let groups = named(&made, &cut);
        for image in &made {
            for (step, groups) in image.steps.iter().zip(&groups[&image.name]) {
                let mut laid: Vec<&String> = groups.iter().flatten().collect();
                laid.sort();
                let mut wanted: Vec<&String> = step.iter().collect();
                wanted.sort();
                prop_assert_eq!(laid, wanted);
                prop_assert!(groups.iter().all(|group| !group.is_empty() && group.is_sorted()));
            }
        }
        for (place, has) in layers(&made, Some(&groups), &cut.squashed).into_iter().enumerate() {
            let Budget::Asked(budget) = made[place].budget else { unreachable!() };
            prop_assert!(has <= budget, "{} has {has} of {budget}", made[place].name);
        }
    }

    #[test]
    fn without_need_nothing_is_stored_twice(made in families()) {
        let groups = cut_of(&made);
        let blobs = stored(&groups);
        let pieces: Vec<&String> = blobs.iter().flat_map(|group| group.iter()).collect();
        let distinct: BTreeSet<&&String> = pieces.iter().collect();
        prop_assert_eq!(pieces.len(), distinct.len());
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(made in families(), seed in vec(any::<Index>(), 9), extra in 0..3_usize) {
        let mut made = made;
        for (place, least) in least(&made).into_iter().enumerate() {
            made[place].budget = Budget::Asked(least + extra);
        }
        let expected = cut_of(&made);
        // Any order with parents first, and packages the other way round.
        let (mut places, mut shuffled) = (BTreeMap::new(), Vec::new());
        while shuffled.len() < made.len() {
            let ready: Vec<usize> = (0..made.len())
                .filter(|place| !places.contains_key(place))
                .filter(|place| made[*place].parent.is_none_or(|parent| places.contains_key(&parent)))
                .collect();
            let chosen = ready[seed[shuffled.len()].index(ready.len())];
            let mut image = made[chosen].clone();
            image.parent = image.parent.map(|parent| places[&parent]);
            image.steps.iter_mut().for_each(|step| step.reverse());
            places.insert(chosen, shuffled.len());
            shuffled.push(image);
        }
        prop_assert_eq!(cut_of(&shuffled), expected);
    }

    #[test]
    fn what_is_remembered_is_kept_whatever_happens_to_one_image(made in families(), changed in any::<Index>(), kind in 0..3) {
        let mut made = made;
        let before = cut_of(&made);
        remember(&mut made, &before);
        prop_assert_eq!(&cut_of(&made), &before);
        let changed = changed.index(made.len());
        let mut touched = BTreeSet::from([changed]);
        for (place, image) in made.iter().enumerate() {
            if image.parent.is_some_and(|parent| touched.contains(&parent)) {
                touched.insert(place);
            }
        }
        match kind {
            // A new image with packages of all others.
            0 => {
                let all: BTreeSet<String> = made.iter().flat_map(|image| image.steps.iter().flatten().cloned()).collect();
                let some = all.into_iter().step_by(2).chain(["new".to_owned()]).collect();
                made.push(Made { steps: vec![some], ..self::made("added", None, &[]) });
                touched.clear();
            }
            // Another package, and one package less.
            1 => {
                made[changed].steps.push(vec!["new".to_owned()]);
                made[changed].steps[0].pop();
            }
            _ => {
                let kept: Vec<usize> = (0..made.len()).filter(|place| !touched.contains(place)).collect();
                let place = |old: usize| kept.iter().position(|kept| *kept == old).unwrap();
                let images = kept.iter().map(|kept| Made { parent: made[*kept].parent.map(place), ..made[*kept].clone() });
                made = images.collect();
                touched.clear();
            }
        }
        let after = cut_of(&made);
        for (place, image) in made.iter().enumerate().filter(|(_, image)| image.name != "added") {
            if !touched.contains(&place) {
                prop_assert_eq!(&after[&image.name], &before[&image.name]);
            }
        }
    }
}

#[test]
fn packages_of_the_same_images_lie_together_and_what_most_share_comes_first() {
    let made = [
        made("base", None, &[&["libc", "shell"]]),
        made("left", Some(0), &[&["python", "left", "ssl"]]),
        made("right", Some(0), &[&["right", "ssl", "python", "java"]]),
        made("other", Some(0), &[&["java", "ssl"]]),
        made("leaf", Some(1), &[]),
    ];
    let groups = cut_of(&made);
    let of = |image: &str| groups[image].iter().flatten().map(|group| group.join(" ")).collect::<Vec<_>>();
    assert_eq!(of("base"), ["libc shell"]);
    assert_eq!(of("left"), ["ssl", "python", "left"]);
    assert_eq!(of("right"), ["ssl", "python", "java", "right"]);
    assert_eq!(of("other"), ["ssl", "java"]);
    assert_eq!(of("leaf"), Vec::<String>::new());
}

#[test]
fn a_new_image_uses_the_groups_that_are_there_and_keeps_its_own_of_what_is_cut_through() {
    let mut family = vec![made("one", None, &[&["a", "b", "c"]]), made("two", None, &[&["a", "b", "d"]])];
    let before = cut_of(&family);
    remember(&mut family, &before);
    family.push(made("three", None, &[&["a", "b", "c", "e"]]));
    family.push(made("four", None, &[&["a", "d"]]));
    let after = cut_of(&family);
    assert_eq!((&after["one"], &after["two"]), (&before["one"], &before["two"]));
    let of = |image: &str| after[image].iter().flatten().map(|group| group.join(" ")).collect::<BTreeSet<_>>();
    assert_eq!(of("three"), BTreeSet::from(["a b", "c", "e"].map(str::to_owned)));
    assert_eq!(of("four"), BTreeSet::from(["a", "d"].map(str::to_owned)));
}

#[test]
fn another_version_of_a_package_keeps_the_groups() {
    let mut family = vec![made("one", None, &[&["a", "b"]]), made("two", None, &[&["a", "c"]])];
    let before = cut_of(&family);
    remember(&mut family, &before);
    let mut images = input(&family);
    for piece in images.iter_mut().flat_map(|image| image.steps.iter_mut().flatten()).filter(|piece| piece.name == "a")
    {
        piece.digest = Digest::of(b"another version");
    }
    assert_eq!(named(&family, &cut(&images).unwrap()), before);
}

#[test]
fn a_smaller_budget_gives_up_the_fewest_bytes() {
    // Each pair of images shares something; `left` must give up one of three layers.
    let mut family = [
        made("left", None, &[&["both", "l-only", "lm"]]),
        made("right", None, &[&["both", "r-only"]]),
        made("middle", None, &[&["lm", "m-only"]]),
    ];
    family[0].budget = Budget::Asked(2);
    let groups = cut_of(&family);
    let distinct: BTreeSet<&String> = family.iter().flat_map(|image| image.steps.iter().flatten()).collect();
    let once: u64 = distinct.into_iter().map(|name| size(name)).sum();
    assert_eq!(bytes(&groups) - once, size("both").min(size("lm")));
    assert_eq!(groups["left"][0].len(), 2);
}

#[test]
fn a_budget_that_cannot_be_met_is_an_error_and_the_usual_one_gives_way() {
    let steps: Vec<Vec<String>> = (0..50).map(|step| vec![format!("p{step}")]).collect();
    let mut family = vec![made("base", None, &[&["a"]]), Made { steps, ..made("leaf", Some(0), &[]) }];
    family[1].others = 3;
    assert_eq!(cut_of(&family)["leaf"].len(), 50);
    family[1].budget = Budget::Asked(50);
    assert_eq!(cut(&input(&family)), Err(OverBudget { image: 1, least: 51, budget: 50 }));
    family[1].budget = Budget::Asked(51);
    assert!(cut(&input(&family)).is_ok());
}

#[test]
fn own_layers_are_squashed_where_they_leave_no_room_and_stay_so() {
    let mut family = vec![
        made("base", None, &[&["a"]]),
        made("leaf", Some(0), &[&["b", "shared"]]),
        made("other", None, &[&["shared", "c"]]),
        made("wide", None, &[&["a"]]),
    ];
    family[1].others = 4;
    assert_eq!(cut(&input(&family)).unwrap().squashed, [false; 4]);
    // Nothing has to be given up for this one.
    family[1].budget = Budget::Asked(8);
    assert_eq!(cut(&input(&family)).unwrap().squashed, [false; 4]);
    family[1].budget = Budget::Asked(6);
    let squashed = cut(&input(&family)).unwrap();
    assert_eq!(squashed.squashed, [true, true, false, false]);
    // What becomes one with the image's own layers is what nobody else has.
    assert_eq!(named(&family, &squashed)["leaf"][0], [["shared"], ["b"]]);
    // Without the image that needed it, its parent stays as it is.
    let groups = named(&family, &squashed);
    remember(&mut family, &groups);
    family[0].squashed = true;
    family.remove(1);
    assert_eq!(cut(&input(&family)).unwrap().squashed, [true, false, false]);
}

#[test]
fn what_is_kept_gives_way_to_a_budget_that_it_does_not_fit() {
    let mut family = vec![made("one", None, &[&["a", "b", "c"]]), made("two", None, &[&["b", "c"]])];
    let before = cut_of(&family);
    remember(&mut family, &before);
    assert_eq!(before["one"][0].len(), 2);
    family[0].budget = Budget::Asked(1);
    assert_eq!(cut_of(&family)["one"][0].len(), 1);
}
