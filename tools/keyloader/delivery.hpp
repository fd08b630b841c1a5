// From a committed change to an answer: publish what is behind, wait until nginx has it, say what is so.
// Called by every changing command, `publish`, `snapshot install`, `snapshot rollback` and `import`.
// INVARIANT: exit code 0 means that the published file has the registry's latest change and that no nginx that is known
// was seen without it, or that the caller asked for less (--no-publish, --no-wait).
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "activation.hpp"
#include "publisher.hpp"
#include "session.hpp"

namespace keyloader {

enum class Effect : std::uint8_t {
  any,
  restricts,  // revokes, suspends or deletes: goes out and counts as active even where an nginx lacks something
};

// What became of a change behind its commit.
struct Outcome {  // NOLINT(bugprone-exception-escape): Json says that moving may throw; it does not
  std::optional<Published> published;  // nothing: it was not published
  Activation activation;
  std::string failure;      // why publishing failed; empty: it did not
  bool is_dry_run = false;  // nothing was changed
  Texts needs;              // of a dry run: what would need a second person
  std::string receipt;      // what is to be said behind text(); empty: nothing
  Json receipt_json;        // null: none

  [[nodiscard]] bool is_done() const;  // exit code 0
  [[nodiscard]] std::string text()
      const;                        // one sentence: "published generation 58 (19 keys); active in nginx (pid 812)"
  [[nodiscard]] Json json() const;  // generation, active, and `problem` where there is one
};

// "generation 58 (19 keys)".
[[nodiscard]] std::string generation_text(const Published& published);

// Nothing was changed; report() says so.
[[nodiscard]] Outcome dry_run();

// Throws UsageError for options that contradict each other. deliver() and its like do it too.
void check(const DeliveryOptions& options);

// The rest of a change: commits it, publishes and waits. Throws only when it was not committed.
Outcome deliver(const Session& session, Registry& registry, Change& change, const DeliveryOptions& options,
                Effect effect = Effect::any);

// The same for a command that found nothing to change: publishes what an earlier one left behind.
// With `change` it ends that first, because publishing begins a change of its own.
Outcome deliver_nothing(const Session& session, Registry& registry, const DeliveryOptions& options,
                        Effect effect = Effect::any);
Outcome deliver_nothing(const Session& session, Registry& registry, Change& change, const DeliveryOptions& options,
                        Effect effect = Effect::any);

// Waits for what was published by other means.
Outcome deliver_published(const Session& session, const Published& published, const DeliveryOptions& options);

// Prints `sentence` and how it went; with --json `json`, an object or a list of them, with the outcome in each.
// Throws NotActive when the outcome is not done.
void report(const Session& session, const std::string& sentence, Json json, const Outcome& outcome);

// For a command that has printed a secret: what is not active yet is a line on standard error, and the exit code is 3
// only when publishing failed, nginx refused it, or --wait was written.
void settle_secret(const Outcome& outcome, const DeliveryOptions& options);

}  // namespace keyloader
