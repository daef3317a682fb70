//! Does a condition over what a run was given, and what its steps put out, hold?
//!
//! `outputs.REBALANCE.shifted > 5 && inputs.dry != true`. Literals are numbers, `'texts'`, `true`, `false` and `null`; `&&`,
//! `||`, `!` and parentheses combine; `==`, `!=`, `<`, `<=`, `>`, `>=` compare. Numbers are compared exactly, digit by digit,
//! also where they are written as texts, as large amounts must be: never as floats.

use std::cmp::Ordering;

use serde_json::Value;

use super::decimal::Decimal;

/// Deeper than this nobody nests.
const DEPTH_MAX: usize = 64;

/// A condition.
#[derive(Clone, PartialEq, Debug)]
pub struct When(Expr);

#[derive(Clone, PartialEq, Debug)]
enum Expr {
    Or(Vec<Expr>),
    And(Vec<Expr>),
    Not(Box<Expr>),
    Compare(Operand, Op, Operand),
    Is(Operand),
}

#[derive(Clone, PartialEq, Debug)]
enum Operand {
    Literal(Value),
    /// As written, and its parts.
    Path(String, Vec<String>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Equal,
    Differs,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// Why a text is no condition.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}, at character {}", at + 1)]
pub struct WhenError {
    /// Where, in characters from 0.
    pub at: usize,
    /// What is wrong there.
    pub why: String,
}

impl When {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<When, WhenError> {
        let mut parser = Parser { text: text.chars().collect(), at: 0, depth: 0 };
        let expr = parser.any()?;
        parser.blank();
        if parser.at < parser.text.len() {
            return Err(parser.wrong("something is left over here"));
        }
        Ok(When(expr))
    }

    /// The steps whose outputs it looks at.
    pub fn steps(&self) -> Vec<&str> {
        let mut steps = Vec::new();
        self.0.steps(&mut steps);
        steps
    }

    /// Says whether it holds. An `Err` says what cannot be compared, or is not there.
    pub fn holds(&self, inputs: &Value, outputs: &Value) -> Result<bool, String> {
        self.0.holds(inputs, outputs)
    }
}

impl Expr {
    fn steps<'a>(&'a self, steps: &mut Vec<&'a str>) {
        let mut of = |operand: &'a Operand| {
            if let Operand::Path(_, parts) = operand
                && let [first, step, ..] = parts.as_slice()
                && first == "outputs"
            {
                steps.push(step);
            }
        };
        match self {
            Expr::Or(all) | Expr::And(all) => all.iter().for_each(|one| one.steps(steps)),
            Expr::Not(one) => one.steps(steps),
            Expr::Compare(left, _, right) => {
                of(left);
                of(right);
            }
            Expr::Is(one) => of(one),
        }
    }

    fn holds(&self, inputs: &Value, outputs: &Value) -> Result<bool, String> {
        match self {
            Expr::Or(all) => {
                for one in all {
                    if one.holds(inputs, outputs)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Expr::And(all) => {
                for one in all {
                    if !one.holds(inputs, outputs)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Expr::Not(one) => one.holds(inputs, outputs).map(|holds| !holds),
            Expr::Is(operand) => match operand.value(inputs, outputs) {
                Value::Bool(value) => Ok(*value),
                Value::Null => Ok(false),
                other => Err(format!("{} is {other}, neither true nor false", operand.name())),
            },
            Expr::Compare(left, op, right) => {
                let (one, other) = (left.value(inputs, outputs), right.value(inputs, outputs));
                let order = compare(one, other);
                match (op, order) {
                    (Op::Equal, order) => Ok(order.map_or(one == other, Ordering::is_eq)),
                    (Op::Differs, order) => Ok(order.map_or(one != other, Ordering::is_ne)),
                    (Op::Less, Some(order)) => Ok(order.is_lt()),
                    (Op::AtMost, Some(order)) => Ok(order.is_le()),
                    (Op::More, Some(order)) => Ok(order.is_gt()),
                    (Op::AtLeast, Some(order)) => Ok(order.is_ge()),
                    (Op::Less | Op::AtMost | Op::More | Op::AtLeast, None) => {
                        Err(format!("{} and {} cannot be compared", left.told(one), right.told(other)))
                    }
                }
            }
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, inputs: &'a Value, outputs: &'a Value) -> &'a Value {
        match self {
            Operand::Literal(value) => value,
            Operand::Path(_, parts) => {
                let mut at = if parts[0] == "inputs" { inputs } else { outputs };
                for part in &parts[1..] {
                    let next = match at {
                        Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
                        _ => at.get(part),
                    };
                    at = next.unwrap_or(&Value::Null);
                }
                at
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Operand::Literal(value) => value.to_string(),
            Operand::Path(written, _) => written.clone(),
        }
    }

    fn told(&self, value: &Value) -> String {
        match (self, value) {
            (Operand::Path(written, _), Value::Null) => format!("{written}, which is not there,"),
            (Operand::Path(written, _), value) => format!("{written} ({value})"),
            (Operand::Literal(_), value) => value.to_string(),
        }
    }
}

/// Orders numbers, also such as are written as texts, and texts; nothing else has an order.
fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(_), Value::Number(_) | Value::String(_)) | (Value::String(_), Value::Number(_)) => {
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some(Decimal::parse(&text(one))?.order(&Decimal::parse(&text(other))?))
        }
        (Value::String(one), Value::String(other)) => match (Decimal::parse(one), Decimal::parse(other)) {
            (Some(one), Some(other)) => Some(one.order(&other)),
            _ => Some(one.cmp(other)),
        },
        _ => None,
    }
}

struct Parser {
    text: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn any(&mut self) -> Result<Expr, WhenError> {
        let mut all = vec![self.all()?];
        while self.eat("||") {
            all.push(self.all()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::Or(all) })
    }

    fn all(&mut self) -> Result<Expr, WhenError> {
        let mut all = vec![self.one()?];
        while self.eat("&&") {
            all.push(self.one()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::And(all) })
    }

    fn one(&mut self) -> Result<Expr, WhenError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong("this is nested too deeply"));
        }
        let expr = self.not_or_comparison();
        self.depth -= 1;
        expr
    }

    fn not_or_comparison(&mut self) -> Result<Expr, WhenError> {
        self.blank();
        if self.text.get(self.at) == Some(&'!') && self.text.get(self.at + 1) != Some(&'=') {
            self.at += 1;
            return Ok(Expr::Not(Box::new(self.one()?)));
        }
        if self.eat("(") {
            let inner = self.any()?;
            if !self.eat(")") {
                return Err(self.wrong("a `)` is missing"));
            }
            return Ok(inner);
        }
        let left = self.operand()?;
        let operators = [
            ("==", Op::Equal),
            ("!=", Op::Differs),
            ("<=", Op::AtMost),
            (">=", Op::AtLeast),
            ("<", Op::Less),
            (">", Op::More),
        ];
        for (sign, op) in operators {
            if self.eat(sign) {
                return Ok(Expr::Compare(left, op, self.operand()?));
            }
        }
        Ok(Expr::Is(left))
    }

    fn operand(&mut self) -> Result<Operand, WhenError> {
        self.blank();
        let begin = self.at;
        match self.text.get(self.at) {
            None => Err(self.wrong("something is missing at the end")),
            Some(quote @ ('\'' | '"')) => {
                let quote = *quote;
                self.at += 1;
                let from = self.at;
                while self.text.get(self.at).is_some_and(|char| *char != quote) {
                    self.at += 1;
                }
                if self.at >= self.text.len() {
                    self.at = begin;
                    return Err(self.wrong("this text has no end"));
                }
                let text = self.text[from..self.at].iter().collect();
                self.at += 1;
                Ok(Operand::Literal(Value::String(text)))
            }
            Some(_) => {
                let in_word =
                    |char: &char| char.is_alphanumeric() || matches!(char, '_' | '-' | '.' | '/' | '+');
                while self.text.get(self.at).is_some_and(in_word) {
                    self.at += 1;
                }
                let word: String = self.text[begin..self.at].iter().collect();
                let wrong = |why: String| WhenError { at: begin, why };
                match word.as_str() {
                    "" => Err(wrong(format!("`{}` says nothing here", self.text[begin]))),
                    "true" => Ok(Operand::Literal(Value::Bool(true))),
                    "false" => Ok(Operand::Literal(Value::Bool(false))),
                    "null" => Ok(Operand::Literal(Value::Null)),
                    word if word.starts_with(|char: char| char.is_ascii_digit() || char == '-') => {
                        match Decimal::parse(word) {
                            // As a text: a number of any length stays what it is.
                            Some(_) => Ok(Operand::Literal(Value::String(word.to_owned()))),
                            None => Err(wrong(format!("`{word}` is not a number"))),
                        }
                    }
                    word => {
                        let parts: Vec<String> = word.split('.').map(str::to_owned).collect();
                        let known = matches!(parts[0].as_str(), "inputs" | "outputs");
                        if !known || parts.len() < 2 || parts.iter().any(String::is_empty) {
                            return Err(wrong(format!(
                                "`{word}` is nothing that is known here: write `inputs.NAME`, `outputs.STEP.NAME`, \
                                 or a text in quotes"
                            )));
                        }
                        Ok(Operand::Path(word.to_owned(), parts))
                    }
                }
            }
        }
    }

    fn eat(&mut self, sign: &str) -> bool {
        self.blank();
        let is = sign.chars().enumerate().all(|(index, char)| self.text.get(self.at + index) == Some(&char));
        if is {
            self.at += sign.len();
        }
        is
    }

    fn blank(&mut self) {
        while self.text.get(self.at).is_some_and(|char| char.is_whitespace()) {
            self.at += 1;
        }
    }

    fn wrong(&self, why: &str) -> WhenError {
        WhenError { at: self.at, why: why.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(text: &str) -> Result<bool, String> {
        let inputs = json!({ "dry": true, "amount": 5, "who": "ann", "big": "20000000000000000001" });
        let outputs = json!({ "A": { "shifted": 4.2, "list": [7, 8] }, "B-1/undo": { "ok": false } });
        When::parse(text).map_err(|err| err.to_string())?.holds(&inputs, &outputs)
    }

    #[test]
    fn conditions_hold_or_not() {
        for (text, expected) in [
            ("inputs.dry", true),
            ("!inputs.dry", false),
            ("inputs.amount == 5", true),
            ("inputs.amount == 5.0", true),
            ("inputs.amount != '5'", false),
            ("inputs.big > 20000000000000000000", true),
            ("inputs.big > inputs.amount", true),
            ("outputs.A.shifted > 4.19 && outputs.A.shifted <= 4.2", true),
            ("outputs.A.list.1 >= 8", true),
            ("outputs.A.list.9 == null", true),
            ("outputs.B-1/undo.ok || inputs.who == \"ann\"", true),
            ("(inputs.dry || outputs.C.x > 1) && inputs.who != 'bob'", true),
            ("-1 < 0 && -2 < -1 && -0 == 0 && 1e3 == 1000 && 1.5e-1 == 0.15", true),
            ("outputs.C.missing", false),
            ("inputs.who < 'bob'", true),
        ] {
            assert_eq!(holds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        for (text, expected) in [
            ("outputs.C.x > 1", "outputs.C.x, which is not there, and \"1\" cannot be compared"),
            ("inputs.amount", "inputs.amount is 5, neither true nor false"),
            ("", "something is missing at the end, at character 1"),
            ("inputs.a ==", "something is missing at the end, at character 12"),
            ("inputs.a == 'x", "this text has no end, at character 13"),
            ("(inputs.a", "a `)` is missing, at character 10"),
            ("inputs.a inputs.b", "something is left over here, at character 10"),
            ("1x == 1", "`1x` is not a number, at character 1"),
            (
                "amount > 1",
                "`amount` is nothing that is known here: write `inputs.NAME`, `outputs.STEP.NAME`, or a text in quotes, \
                 at character 1",
            ),
        ] {
            assert_eq!(holds(text), Err(expected.to_owned()), "{text}");
        }
        let deep = format!("{}inputs.a", "(".repeat(1_000));
        assert!(holds(&deep).is_err_and(|why| why.contains("nested too deeply")));
    }
}
