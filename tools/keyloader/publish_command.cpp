// keyloader publish: hands the registry, as it is now, to nginx.
#include <fmt/format.h>

#include "publisher.hpp"
#include "session.hpp"

namespace keyloader {

void add_publish_command(Command& app, Session& session) {
  auto allow_shrink = std::make_shared<bool>(false);
  Command command = app.add("publish", "Hand the registry, as it is now, to nginx");
  command.flag("--allow-shrink", *allow_shrink, "The loss of keys is meant: fewer than half, or keys nobody deleted");
  command.footer(
      "Changing commands publish by themselves; this is for after --no-publish, or after a publish that failed.\n"
      "nginx takes the new snapshot without a reload.\n\n"
      "  keyloader publish\n"
      "  keyloader publish --allow-shrink");
  command.run([&session, allow_shrink] {
    const auto registry = session.dir().open_registry();
    const Published published = publish(session.dir(), *registry, Loss{.is_meant = *allow_shrink});
    session.report(fmt::format("generation {}: {} keys are in service", published.generation, published.keys),
                   {{"generation", published.generation}, {"keys", published.keys}});
  });
}

}  // namespace keyloader
