// How keys begin. A prefix of one's own lets scanners and people tell whose key they have found.
// Must never take another vendor's without asking: whoever finds such a key reports it to the wrong one.
#include "prefix.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apikey/key_form.hpp"
#include "session.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct KnownPrefix {
  std::string_view prefix;
  std::string_view vendor;
};

// As the vendors document them: Stripe "API keys" (sk, pk, rk, whsec), OpenAI and Anthropic "API keys" (sk), GitHub
// "Token formats" (gh?, github_pat), GitLab "Token prefixes" (gl…), Slack "Token types" (xox?, xapp), AWS "IAM
// identifiers" (AKIA, ASIA), Google Cloud "API keys" (AIza), npm and PyPI on their tokens, Hugging Face "User access
// tokens" (hf), DigitalOcean "Personal access tokens" (dop, doo), Shopify "Access tokens" (shpat, shpss).
constexpr std::array<KnownPrefix, 29> kKnown{{
    {"sk", "Stripe, OpenAI and Anthropic"},
    {"pk", "Stripe"},
    {"rk", "Stripe"},
    {"whsec", "Stripe"},
    {"ghp", "GitHub"},
    {"gho", "GitHub"},
    {"ghu", "GitHub"},
    {"ghs", "GitHub"},
    {"ghr", "GitHub"},
    {"github", "GitHub"},
    {"glpat", "GitLab"},
    {"gldt", "GitLab"},
    {"glrt", "GitLab"},
    {"xoxb", "Slack"},
    {"xoxp", "Slack"},
    {"xoxa", "Slack"},
    {"xapp", "Slack"},
    {"akia", "Amazon Web Services"},
    {"asia", "Amazon Web Services"},
    {"aiza", "Google"},
    {"npm", "npm"},
    {"pypi", "PyPI"},
    {"hf", "Hugging Face"},
    {"dop", "DigitalOcean"},
    {"doo", "DigitalOcean"},
    {"shpat", "Shopify"},
    {"shpss", "Shopify"},
    {"shpca", "Shopify"},
    {"shppa", "Shopify"},
}};

}  // namespace

void check_prefix(const std::string& prefix, bool is_sure) {
  if (is_none(prefix)) {
    throw UsageError(
        fmt::format("\"{}\" cannot be a prefix: it is the word that clears a value; write --prefix {} for the default",
                    prefix, kDefaultPrefix));
  }
  if (!apikey::is_valid_prefix(prefix)) {
    throw UsageError(fmt::format("\"{}\" is no prefix: {}-{} of a-z 0-9", prefix, apikey::kMinPrefixLength,
                                 apikey::kMaxPrefixLength));
  }
  const auto* const known =
      std::find_if(kKnown.begin(), kKnown.end(), [&](const KnownPrefix& each) { return each.prefix == prefix; });
  if (known != kKnown.end() && !is_sure) {
    throw Failure(fmt::format(
        "keys of {} begin with {}, so whoever finds one of yours may report it to them; choose a prefix of your "
        "own, or add --yes",
        known->vendor, prefix));
  }
}

void warn_of_prefix(const std::string& prefix) {
  if (prefix == kDefaultPrefix) {
    Session::warn(
        fmt::format("keys will begin with {}, the default, which other registries use too; `keyloader registry set "
                    "--prefix acme` chooses your own",
                    prefix));
  }
}

std::string prefix_of(const RegistryInfo& info) {
  return info.prefix.empty() ? std::string{kDefaultPrefix} : info.prefix;
}

}  // namespace keyloader
