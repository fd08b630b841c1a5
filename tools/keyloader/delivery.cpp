// Publishing and waiting behind a change, and the words for it.
#include "delivery.hpp"

#include <fmt/format.h>

#include "disk_full.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::uint64_t kMsPerSecond = 1000;

Target target_of(const Published& published, Effect effect) {
  return {.registry_id = published.registry_id,
          .generation = published.generation,
          .seal = published.seal,
          .only_restricts = effect == Effect::restricts};
}

void wait_for(const Session& session, const DeliveryOptions& options, Effect effect, Outcome& outcome) {
  if (options.does_not_wait) {
    outcome.activation = {Activity::unknown, "not waited for nginx"};
    return;
  }
  const std::uint64_t wait_ms =
      options.wait ? static_cast<std::uint64_t>(parse_duration(*options.wait)) * kMsPerSecond : kDefaultWaitMs;
  outcome.activation = wait_until_active(session.dir(), session.runtime, target_of(*outcome.published, effect),
                                         {.wait_ms = wait_ms, .waits_for_nginx = options.wait.has_value()});
  if (options.wait && outcome.activation.activity == Activity::unknown) {
    outcome.activation.activity = Activity::not_yet;  // who asks to wait wants it active
  }
}

Outcome publish_and_wait(const Session& session, Registry& registry, const DeliveryOptions& options, Effect effect,
                         bool has_changed) {
  Outcome outcome;
  if (options.is_quiet) {
    return outcome;
  }
  try {
    const Nodes nodes(session.dir(), session.runtime);
    outcome.published = publish(session.dir(), registry, nodes,
                                {.keeps_rollback = !has_changed, .only_restricts = effect == Effect::restricts});
  } catch (const DiskFull&) {
    outcome.failure = "the disk is full; make room first";  // whatever it names, the change must not be tried again
    return outcome;
  } catch (const Failure& failure) {
    outcome.failure = failure.what();
    return outcome;
  }
  wait_for(session, options, effect, outcome);
  return outcome;
}

void add_outcome(Json& json, const Outcome& outcome) {
  if (json.is_array()) {
    for (Json& each : json) {
      each.update(outcome.json());
    }
  } else {
    json.update(outcome.json());
  }
}

}  // namespace

std::string generation_text(const Published& published) {
  return fmt::format("generation {} ({} {})", published.generation, published.keys,
                     published.keys == 1 ? "key" : "keys");
}

Outcome dry_run() {
  Outcome outcome;
  outcome.is_dry_run = true;
  return outcome;
}

void check(const DeliveryOptions& options) {
  if (options.wait && options.does_not_wait) {
    throw UsageError("--wait and --no-wait contradict each other");
  }
  if (options.is_dry_run && (options.wait || options.does_not_wait || options.is_quiet)) {
    throw UsageError("with --dry-run nothing is changed, so there is nothing to publish or to wait for");
  }
  if (options.is_quiet && (options.wait || options.does_not_wait)) {
    throw UsageError("with --no-publish there is nothing to wait for");
  }
  if (options.wait) {
    static_cast<void>(parse_duration(*options.wait));
  }
}

bool Outcome::is_done() const {
  return failure.empty() && (activation.activity == Activity::active || activation.activity == Activity::unknown);
}

std::string Outcome::text() const {
  if (!failure.empty()) {
    return fmt::format(
        "the registry has the change, but it is not published: {}. nginx goes on with what it has until "
        "`keyloader publish` succeeds",
        failure);
  }
  if (!published) {
    return "not published: `keyloader publish` hands it to nginx";
  }
  const std::string generation = generation_text(*published);
  if (!is_done()) {
    return fmt::format("{} is published, but {}", generation, activation.sentence);
  }
  if (published->is_new) {
    return fmt::format("published {}; {}", generation, activation.sentence);
  }
  return fmt::format("{} was published before; {}", generation, activation.sentence);
}

Json Outcome::json() const {
  if (is_dry_run) {
    return needs.empty() ? Json{{"dry_run", true}} : Json{{"dry_run", true}, {"needs", needs}};
  }
  Json json{{"generation", published ? Json(published->generation) : Json(nullptr)}, {"active", false}};
  if (published && is_done()) {
    json["active"] = activation.activity == Activity::active ? Json(true) : Json(nullptr);
  }
  if (!is_done()) {
    json["problem"] = failure.empty() ? activation.sentence : failure;
  }
  if (!receipt_json.is_null()) {
    json["receipt"] = receipt_json;
  }
  return json;
}

Outcome deliver(const Session& session, Registry& registry, Change& change, const DeliveryOptions& options,
                Effect effect) {
  check(options);
  if (options.is_dry_run) {
    Outcome outcome = dry_run();
    outcome.needs = change.needs();
    return outcome;
  }
  change.commit();
  return publish_and_wait(session, registry, options, effect, true);
}

Outcome deliver_nothing(const Session& session, Registry& registry, const DeliveryOptions& options, Effect effect) {
  check(options);
  return publish_and_wait(session, registry, options, effect, false);
}

Outcome deliver_nothing(const Session& session, Registry& registry, Change& change, const DeliveryOptions& options,
                        Effect effect) {
  check(options);
  if (options.is_dry_run) {
    return dry_run();
  }
  change.commit();  // of nothing
  return publish_and_wait(session, registry, options, effect, false);
}

Outcome deliver_published(const Session& session, const Published& published, const DeliveryOptions& options) {
  Outcome outcome;
  outcome.published = published;
  wait_for(session, options, Effect::any, outcome);
  return outcome;
}

void report(const Session& session, const std::string& sentence, Json json, const Outcome& outcome) {
  add_outcome(json, outcome);
  if (outcome.is_dry_run) {
    session.report(fmt::format("dry run, nothing was changed; without --dry-run{}:\n{}",
                               outcome.needs.empty() ? ""
                                                     : fmt::format(", once a second person has approved it ({})",
                                                                   fmt::join(outcome.needs, ", ")),
                               sentence),
                   json);
    return;
  }
  const bool is_done = outcome.is_done();
  const std::string receipt = outcome.receipt.empty() ? "" : "\n" + outcome.receipt;
  session.report(is_done ? fmt::format("{}\n{}{}", sentence, outcome.text(), receipt) : sentence, json);
  if (!is_done) {
    throw NotActive(outcome.text());
  }
}

void settle_secret(const Outcome& outcome, const DeliveryOptions& options) {
  if (outcome.is_done()) {
    return;
  }
  const bool may_come = outcome.failure.empty() && (outcome.activation.activity == Activity::not_yet ||
                                                    outcome.activation.activity == Activity::stopped);
  if (!may_come || options.wait) {
    throw NotActive(outcome.text());
  }
  Session::warn(outcome.text());
}

}  // namespace keyloader
