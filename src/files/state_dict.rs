//! The names of a PyTorch `state_dict`, as far as they tell an order of layers.

use std::collections::BTreeMap;

/// The modules in the order of their numbers, if each has a weight and a bias and nothing else, and
/// their paths differ in one number only: `0`, `2`, `4` of a `Sequential`; `net.0`, `net.2`; `fc1`,
/// `fc2`, `fc3`. A single module needs no number.
///
/// Numbers alone are a `Sequential`, where something stands between the layers only if the numbers
/// leave room for it: `0`, `1` are two layers without an activation, which no model here is.
pub(crate) fn modules<'n>(names: impl Iterator<Item = &'n str>) -> Option<Vec<String>> {
    let mut parts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let (module, part) = name.rsplit_once('.')?;
        parts.entry(module).or_default().push(part);
    }
    let mut numbered = Vec::new();
    for (module, mut parts) in parts {
        parts.sort_unstable();
        if parts != ["bias", "weight"] {
            return None;
        }
        numbered.push((module, pieces(module)?));
    }
    let [(only, _)] = &numbered[..] else { return in_order(numbered) };
    Some(vec![only.to_string()])
}

/// A text or a number.
#[derive(PartialEq, Eq)]
enum Piece<'n> {
    Text(&'n str),
    Number(u32),
}

/// The runs of digits in a path, and what is between them; `None` for a number of too many digits.
fn pieces(path: &str) -> Option<Vec<Piece<'_>>> {
    path.as_bytes()
        .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
        .scan(0, |start, run| {
            let piece = &path[*start..*start + run.len()];
            *start += run.len();
            Some(match run[0].is_ascii_digit() {
                true => piece.parse().map(Piece::Number).ok(),
                false => Some(Piece::Text(piece)),
            })
        })
        .collect()
}

/// The path without what `DataParallel` and `torch.compile` put before every path.
fn unwrapped(path: &str) -> &str {
    let inner = path.strip_prefix("module.").or_else(|| path.strip_prefix("_orig_mod."));
    inner.map_or(path, unwrapped)
}

fn in_order(mut numbered: Vec<(&str, Vec<Piece<'_>>)>) -> Option<Vec<String>> {
    let (_, first) = numbered.first()?;
    let differs = |at: usize| numbered.iter().any(|(_, pieces)| pieces.get(at) != first.get(at));
    let mut places = (0..first.len()).filter(|&at| differs(at));
    let (place, None) = (places.next()?, places.next()) else { return None };
    let number = |pieces: &[Piece<'_>]| match pieces.get(place) {
        Some(&Piece::Number(number)) => Some(number),
        _ => None,
    };
    let alike = |pieces: &[Piece<'_>]| pieces.len() == first.len() && number(pieces).is_some();
    if !numbered.iter().all(|(_, pieces)| alike(pieces)) {
        return None;
    }
    let bare = unwrapped(numbered[0].0).bytes().all(|byte| byte.is_ascii_digit());
    numbered.sort_by_key(|(_, pieces)| number(pieces));
    let dense = |pair: &[(&str, Vec<Piece<'_>>)]| {
        number(&pair[1].1).zip(number(&pair[0].1)).is_some_and(|(b, a)| b - a < 2)
    };
    if bare && numbered.windows(2).any(dense) {
        return None;
    }
    Some(numbered.into_iter().map(|(module, _)| module.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::modules;

    fn of(paths: &[&str]) -> Option<Vec<String>> {
        let names: Vec<String> = paths
            .iter()
            .flat_map(|path| ["bias", "weight"].map(|part| format!("{path}.{part}")))
            .collect();
        modules(names.iter().map(String::as_str))
    }

    #[test]
    fn numbers_tell_the_order() {
        let orders: [&[&str]; 8] = [
            &["0", "2", "10"],
            &["net.0", "net.3", "net.12"],
            &["module.layers.0", "module.layers.1"],
            &["fc1", "fc2", "fc10"],
            &["blocks.0.linear", "blocks.1.linear"],
            &["l1.0", "l1.2"],
            &["classifier"],
            &["_orig_mod.module.0", "_orig_mod.module.2"],
        ];
        for expected in orders {
            let mut sorted = expected.to_vec();
            sorted.sort_unstable();
            assert_eq!(of(&sorted).unwrap(), expected);
        }
    }

    #[test]
    fn what_tells_no_order_is_not_guessed() {
        let unknown: [&[&str]; 9] = [
            &[],
            &["hidden", "out"],
            &["fc1", "fc2", "out"],
            &["features.0", "classifier.0"],
            &["a.0.b.0", "a.1.b.1"],
            &["fc1", "fc1.2"],
            // Two layers of a Sequential with nothing between them.
            &["0", "1", "3"],
            &["module._orig_mod.0", "module._orig_mod.1"],
            &["fc99999999999", "fc2"],
        ];
        for paths in unknown {
            assert_eq!(of(paths), None, "{paths:?}");
        }
        let names: [&[&str]; 4] = [
            &["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean"],
            &["0.weight", "2.weight"],
            &["weight", "bias"],
            &["0.weight", "0.bias", "scale"],
        ];
        for names in names {
            assert_eq!(modules(names.iter().copied()), None, "{names:?}");
        }
    }
}
