// How far words are from one another: optimal string alignment distance (Damerau 1964; Levenshtein 1966).
#include "nearest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kLettersPerMistake = 3;
constexpr std::size_t kMaxMistakes = 3;

// How many letters to add, drop, replace or swap with a neighbour make `b` of `a`.
std::size_t distance(const std::string& first, const std::string& second) {
  const std::string a = lower_case(first);
  const std::string b = lower_case(second);
  std::vector<std::vector<std::size_t>> steps(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        steps[i][j] = i + j;
        continue;
      }
      const bool is_same = a[i - 1] == b[j - 1];
      steps[i][j] = std::min(
          {steps[i - 1][j] + 1, steps[i][j - 1] + 1, steps[i - 1][j - 1] + static_cast<std::size_t>(!is_same)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        steps[i][j] = std::min(steps[i][j], steps[i - 2][j - 2] + 1);
      }
    }
  }
  return steps[a.size()][b.size()];
}

}  // namespace

bool is_near(const std::string& a, const std::string& b) {
  return distance(a, b) <= std::max<std::size_t>(1, std::min(a.size() / kLettersPerMistake, kMaxMistakes));
}

void sort_by_nearness(Texts& names, const std::string& word) {
  std::stable_sort(names.begin(), names.end(),
                   [&](const std::string& a, const std::string& b) { return distance(word, a) < distance(word, b); });
}

std::string nearest(const std::string& word, Texts names) {
  sort_by_nearness(names, word);
  return !names.empty() && is_near(word, names.front()) ? names.front() : std::string{};
}

std::string did_you_mean(const std::string& word, Texts names) {
  const std::string meant = nearest(word, std::move(names));
  return meant.empty() ? std::string{} : fmt::format("did you mean \"{}\"? ", meant);
}

}  // namespace keyloader
