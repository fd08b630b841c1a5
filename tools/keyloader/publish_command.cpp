// keyloader publish: hands the registry, as it is now, to nginx.
#include <fmt/format.h>

#include "delivery.hpp"
#include "publish/snapshot_file.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kMaxReason = 512;

struct PublishOptions {
  bool allows_shrink = false;
  bool takes_over = false;
  std::string reason;
  DeliveryOptions delivery;
};

// Says what is replaced by what, before it happens.
void show_take_over(const Nodes& nodes, const DataDir& directory, const RegistryInfo& info) {
  Session::warn(fmt::format("registry {} (generation {}) takes over in {}", hex(info.id), info.generation,
                            directory.path().string()));
  apikey::publish::SnapshotFile current;
  if (current.open(directory.snapshot_file()).ok()) {
    Session::warn(fmt::format("keys.mdb is generation {} of registry {}", current.meta().generation,
                              hex(current.meta().registry_id)));
  }
  for (const KnownStore& known : nodes.stores()) {
    Session::warn(fmt::format("{} has seen generation {} of registry {}", known.node, known.highest_generation,
                              hex(known.registry_id)));
  }
}

void run(const Session& session, const PublishOptions& options) {
  check(options.delivery);
  if (options.takes_over != !options.reason.empty()) {
    throw UsageError("--take-over and --reason go together: why is this registry to replace what nginx uses?");
  }
  if (options.takes_over) {
    check_text("reason", options.reason, kMaxReason);
  }
  const DataDir directory = session.dir();
  const auto registry = directory.open_registry();
  const Nodes nodes(directory, session.runtime);
  PublishRequest request{
      .allows_shrink = options.allows_shrink, .renews = true, .is_dry_run = options.delivery.is_dry_run};
  if (options.takes_over) {
    request.take_over = options.reason;
    show_take_over(nodes, directory, registry->info());
  }
  const Published published = publish(directory, *registry, nodes, request);
  if (request.is_dry_run) {
    const std::string text = "published " + generation_text(published);
    report(session, published.is_renewal ? "nothing has changed; " + text : text,
           {{"keys", published.keys}, {"generation", published.generation}, {"renewed", published.is_renewal}},
           dry_run());
    return;
  }
  const Outcome outcome = deliver_published(session, published, options.delivery);
  Json json{{"keys", published.keys}, {"renewed", published.is_renewal}};
  json.update(outcome.json());
  if (!outcome.is_done()) {
    if (session.is_json) {
      session.report({}, json);
    }
    throw NotActive(outcome.text());
  }
  session.report(published.is_renewal ? "nothing has changed; " + outcome.text() : outcome.text(), json);
}

}  // namespace

void add_publish_command(Command& app, Session& session) {
  auto options = std::make_shared<PublishOptions>();
  Command command = app.add("publish", "Hand the registry, as it is now, to nginx");
  command.flag("--allow-shrink", options->allows_shrink,
               "The loss of keys that the registry did not count or nobody deleted is intended");
  command.flag("--take-over", options->takes_over,
               "Replace another registry's snapshot, or a newer one of this registry, in keys.mdb and in nginx");
  command.option("--reason", options->reason, "TEXT", "Why; kept in the audit (with --take-over)");
  command.tries(options->delivery);
  command.waits(options->delivery);
  command.footer(
      "Changing commands publish by themselves; this is for after --no-publish, or after a publish that failed. When\n"
      "keys.mdb has every change already, it is published again with a new time, for apikey_store max_age=. nginx "
      "takes\n"
      "the new snapshot without a reload.\n\n"
      "--take-over permits nginx to take this one file, once: after a registry was restored from a backup, or "
      "replaced\n"
      "by another one. Keys that were revoked since the backup are good again unless they are revoked again first.\n\n"
      "  keyloader publish\n"
      "  keyloader publish --allow-shrink\n"
      "  keyloader publish --take-over --reason 'registry restored from the backup of Monday'");
  command.run_on_machine(session, [&session, options] { run(session, *options); });
}

}  // namespace keyloader
